"""What commands cost a person who waits for them, with 200 qubes there. No machine is run."""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.report import Figure, interleaved, median, milliseconds
from tests.serving import serving

QUBES = 200
TIMES = 20
_BIN = Path(sys.executable).parent
_MOST_FACTOR, _MOST_MORE = 2.5, 0.150  # times `python3 -c pass`, and seconds on top of it


def commands() -> list[Figure]:
    """Whole processes, from their start to their end."""
    with instance_of_qubes() as run:
        environment = {**os.environ, "INSULA_RUN": str(run)}

        def timed(*words: str) -> float:
            begun = time.monotonic()
            subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=True)
            return time.monotonic() - begun

        complete = [sys.executable, "-m", "insula.tools.complete", "insula.tools.qvm_power:start"]
        bare, listing, names, completion = interleaved(
            TIMES,
            lambda: timed(sys.executable, "-c", "pass"),
            lambda: timed(str(_BIN / "qvm-ls")),
            lambda: timed(str(_BIN / "qvm-ls"), "--raw-list"),
            lambda: timed(*complete, "line", "qvm-start w", ":="),
        )
    most = _MOST_FACTOR * median(bare) + _MOST_MORE
    return [
        Figure("python3 -c pass", milliseconds(median(bare)), "", None, tuple(bare)),
        _figure(f"qvm-ls, {QUBES} qubes", listing, most),
        _figure(f"qvm-ls --raw-list, {QUBES} qubes", names, most),
        _figure(f"completion of a name, {QUBES} qubes", completion, 0.1),
    ]


def _figure(name: str, samples: list[float], most: float) -> Figure:
    target, seen = f"at most {milliseconds(most)}", median(samples)
    return Figure(name, milliseconds(seen), target, seen <= most, tuple(samples))


@contextmanager
def instance_of_qubes() -> Iterator[Path]:
    """An instance in a process of its own, which has nothing else to do."""
    with tempfile.TemporaryDirectory(prefix="insula-") as home:
        words = [sys.executable, "-m", "tests.bench.commands", home]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            timer = threading.Timer(300, server.kill)
            timer.start()
            assert server.stdout is not None
            try:
                yield Path(server.stdout.readline().decode().strip())
            finally:
                timer.cancel()
                server.communicate()


async def _serve(home: Path) -> None:
    """Serve until our input ends."""
    async with serving(home) as instance:
        await instance.template()
        await asyncio.gather(*(instance.qube(f"work-{number}") for number in range(QUBES)))
        print(instance.run, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]) / "home"))
