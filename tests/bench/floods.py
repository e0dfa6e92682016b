"""Calls of others while a qube floods: beside none, a busy qube, and two kinds of floods."""

import time
from dataclasses import dataclass
from pathlib import Path

from insula.client.local_socket import request
from tests.bench.calls import ECHO, seconds_in
from tests.bench.report import Figure, median
from tests.bench.setting import Setting, cpu_seconds

_ROUNDS = 15
_SETTLE = 3.0  # seconds until a flood is at its height, and what it may do at once is used up
_CALL = "qrexec-client-vm bench-b test.Echo < /dev/null"
_FLOOD = "exec python3 - {} bench-b"


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """A third qube. title: what it does. command: by which, as that user. most: times as long."""

    title: str
    user: str
    command: str
    most: float | None


_NEIGHBOURS = (
    _Neighbour("is busy", "user", "while :; do :; done", None),
    _Neighbour("floods by its programs' requests", "user", _FLOOD.format("agent"), 2),
    _Neighbour("floods on its control port", "root", _FLOOD.format("port"), 2),
)


def floods(setting: Setting) -> list[Figure]:
    """A call between two qubes beside a third: each compared with the same beside nobody."""
    instance = setting.instance
    rules = instance.home / "policy.d" / "30-user.policy"
    rules.write_text("* * bench-a bench-b allow\n")
    for name in ("bench-a", "bench-b"):
        instance.say("qvm-create", "--label", "blue", name)
        instance.say("qvm-start", name)
    instance.say("qvm-create", "--label", "red", "bench-bad")
    try:
        instance.say("qvm-run", "-u", "root", "bench-b", ECHO)
        quiet, _ = _calls(setting)
        found = [Figure("a call between two qubes", f"{quiet * 1000:.0f} ms", "", None)]
        return found + [_beside(setting, quiet, neighbour) for neighbour in _NEIGHBOURS]
    finally:
        for name in ("bench-a", "bench-b"):
            instance.say("qvm-kill", name)


def _beside(setting: Setting, quiet: float, neighbour: _Neighbour) -> Figure:
    instance, most = setting.instance, neighbour.most
    script = (Path(__file__).parent / "flooding.py").read_bytes()
    instance.say("qvm-start", "bench-bad")
    words = ("-p", "-q", "-u", neighbour.user, "bench-bad", neighbour.command)
    process = instance.start("qvm-run", *words)
    assert process.stdin is not None
    try:
        process.stdin.write(script)
        process.stdin.close()
        time.sleep(_SETTLE)
        taken, share = _calls(setting)
    finally:
        instance.say("qvm-kill", "bench-bad")
        process.wait(30)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    ratio = taken / quiet
    return Figure(
        f"the same while a third {neighbour.title}",
        f"{taken * 1000:.0f} ms = {ratio:.1f} x; the daemon is busy {share * 100:.0f} %",
        "" if most is None else f"at most {most:g} x",
        None if most is None else ratio <= most,
    )


def _calls(setting: Setting) -> tuple[float, float]:
    """Seconds of a call, and the daemon's share of a processor meanwhile."""
    pid, begun = request("status")["pid"], time.monotonic()
    before = cpu_seconds(pid)
    taken = median([seconds_in(setting, _CALL) for _ in range(_ROUNDS)])
    return taken, (cpu_seconds(pid) - before) / (time.monotonic() - begun)
