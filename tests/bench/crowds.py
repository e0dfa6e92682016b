"""Many disposables at once: what they take, and whether they all answer."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from insula.client.local_socket import request
from tests.bench.report import Figure
from tests.bench.setting import WITH_X, WITHOUT_X, Setting

SETTLE = 20.0  # seconds after which a started qube is idle
IDLE = 30.0  # seconds over which an idle crowd's processor time is counted
_TICKS = os.sysconf("SC_CLK_TCK")
_MB = 1_000_000


def memory(setting: Setting) -> list[Figure]:
    """Memory of an idle disposable with nine others alive."""
    figures = []
    for title, template, limit in (("without X", WITHOUT_X, 70), ("with X", WITH_X, 130)):
        with _crowd(setting, template, 10):
            time.sleep(SETTLE)
            each = [sum(map(_own_memory, layers)) for layers in _machines()]
        mean = sum(each) / len(each) / _MB
        figures.append(
            Figure(
                f"idle disposable {title}, 10 alive",
                f"{mean:.0f} MB",
                f"at most {limit} MB",
                mean <= limit,
                tuple(each),
            )
        )
    return figures


def many(setting: Setting) -> list[Figure]:
    """As many as are asked for on 24 GiB, together."""
    figures = []
    for title, template, count in (("with X", WITH_X, 60), ("without X", WITHOUT_X, 120)):
        begun = time.monotonic()
        with _crowd(setting, template, count) as crowd:
            started = time.monotonic() - begun
            time.sleep(SETTLE)
            answered = sum(_answers(one) for one in crowd)
            time.sleep(SETTLE)
            machines = [pid for layers in _machines() for pid in layers]
            total = sum(map(_own_memory, machines)) / _MB / 1000
            busy = _cpu_seconds(machines)
            time.sleep(IDLE)
            cores = (_cpu_seconds(machines) - busy) / IDLE
        figures += [
            Figure(
                f"{count} disposables {title}: answering",
                f"{answered} ({started:.0f} s to start)",
                f"all {count}",
                answered == count,
            ),
            Figure(
                f"{count} disposables {title}: memory", f"{total:.1f} GB", "under 10 GB", total < 10
            ),
            Figure(
                f"{count} disposables {title}: idle",
                f"{cores:.2f} cores",
                "under 0.5 cores",
                cores < 0.5,
            ),
        ]
    return figures


@contextmanager
def _crowd(
    setting: Setting, template: str, count: int
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Disposables that each run `cat`, started one after the other."""
    crowd = []
    try:
        for _ in range(count):
            one = setting.instance.start("qvm-run", "-p", "-q", f"--dispvm={template}", "--", "cat")
            crowd.append(one)
            if not _answers(one):
                raise RuntimeError(f"disposable {len(crowd)} of {count} does not answer")
        yield crowd
    finally:
        for one in crowd:
            assert one.stdin is not None
            one.stdin.close()
        for one in crowd:
            one.wait(60)
            for stream in (one.stdout, one.stderr):
                assert stream is not None
                stream.close()


def _answers(one: "subprocess.Popen[bytes]") -> bool:
    assert one.stdin is not None
    assert one.stdout is not None
    one.stdin.write(b"ping\n")
    one.stdin.flush()
    return one.stdout.readline() == b"ping\n"


def _machines() -> list[tuple[int, int]]:
    """Processes of all running machines, both layers of each one's jail."""
    return [(qube["pid"], _parent(qube["pid"])) for qube in request("status")["running"]]


def _parent(pid: int) -> int:
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


def _own_memory(pid: int) -> int:
    """Bytes of Private_Dirty and swap."""
    fields = dict(
        line.split(":", 1)
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]
    )
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Dirty", "Swap"))


def _cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS
