"""Calls from qube to qube, beside process starts and pipes of the same machines."""

from pathlib import Path

from tests.bench.report import Figure, interleaved, median
from tests.bench.setting import Setting
from tests.vm.instance import COMMAND_TIMEOUT

_MANY = 2000
_ROUNDS = 7
_LONG = 900.0  # seconds
ECHO = (
    "mkdir -p /usr/local/etc/qubes-rpc; cd /usr/local/etc/qubes-rpc; "
    "printf '#!/bin/sh\\necho $1\\n' > test.Echo; chmod 755 test.Echo"
)
_SERVICES = """
cd /usr/local/etc/qubes-rpc
printf '#!/bin/sh\\ncat > /dev/null\\n' > test.Sink
printf '#!/bin/sh\\ncd; rm -rf tar; mkdir tar; tar xf - -C tar; sync -f tar\\n' > test.Untar
chmod 755 test.*
"""
_FILES = (
    "mkdir small; for n in $(seq 2000); do echo $n > small/$n; done; "
    "head -c 134217728 /dev/urandom > big; sync"
)


def calls(setting: Setting) -> list[Figure]:
    """A call, many at once, throughput, and copies of files."""
    instance = setting.instance
    rules = instance.home / "policy.d" / "30-user.policy"
    rules.write_text("* * bench-a bench-b allow\n")
    for name in ("bench-a", "bench-b"):
        instance.say("qvm-create", "--label", "blue", name)
        instance.say("qvm-start", name)
    try:
        instance.say("qvm-run", "-u", "root", "bench-b", ECHO)
        instance.say("qvm-run", "-u", "root", "bench-b", "; ".join(_SERVICES.split("\n")[1:-1]))
        return [_one(setting), _many(setting), _throughput(setting), *_copies(setting)]
    finally:
        for name in ("bench-a", "bench-b"):
            instance.say("qvm-kill", name)


def seconds_in(
    setting: Setting, command: str, qube: str = "bench-a", timeout: float = COMMAND_TIMEOUT
) -> float:
    """Seconds that a command takes inside a qube, by the qube's own clock."""
    timed = f"b=$(date +%s%N); {{ {command}; }} > /dev/null || exit 1; echo $(($(date +%s%N) - b))"
    return int(setting.instance.say("qvm-run", "-p", "-q", qube, timed, timeout=timeout)) / 1e9


def _one(setting: Setting) -> Figure:
    call = "qrexec-client-vm bench-b test.Echo < /dev/null"
    ours, plain = interleaved(
        _ROUNDS,
        lambda: seconds_in(setting, call),
        lambda: (
            seconds_in(setting, "/bin/sh -c :") + seconds_in(setting, "/bin/sh -c :", "bench-b")
        ),
    )
    ratio = median(ours) / median(plain)
    value = f"{median(ours) * 1000:.0f} ms = {ratio:.1f} x {median(plain) * 1000:.0f} ms"
    return Figure("call from qube to qube", value, "at most 2 x two process starts", ratio <= 2)


def _many(setting: Setting) -> Figure:
    script = (Path(__file__).parent / "flood.py").read_bytes()
    said = setting.instance.say(
        *("qvm-run", "-p", "-q", "bench-a", f"python3 - bench-b test.Echo {_MANY}"),
        given=script,
        timeout=_LONG,
    )
    right, seconds = said.split()
    value = f"{right} answered in {seconds} s"
    return Figure(f"{_MANY} calls at once from one qube", value, "all", int(right) == _MANY)


def _throughput(setting: Setting) -> Figure:
    give = "dd if=/dev/zero bs=65536 count=1024 status=none"
    ours, plain = interleaved(
        5,
        lambda: seconds_in(setting, f"{give} | qrexec-client-vm bench-b test.Sink"),
        lambda: seconds_in(setting, f"{give} | dd of=/dev/null bs=65536 status=none"),
    )
    size = 64 * 1024 * 1024 / 1e6
    value = f"{size / median(ours):.0f} MB/s; a pipe in the qube: {size / median(plain):.0f} MB/s"
    return Figure("from qube to qube, 64 MiB", value, "0.7 x dd | dd over raw ports", None)


def _copies(setting: Setting) -> list[Figure]:
    setting.instance.say("qvm-run", "bench-a", _FILES, timeout=_LONG)
    found = []
    for name, title in (("small", "2000 small files"), ("big", "one file of 128 MiB")):

        def copied(name: str = name) -> float:
            clean = f"rm -rf QubesIncoming/bench-a/{name}"
            setting.instance.say("qvm-run", "bench-b", clean, timeout=_LONG)
            return seconds_in(setting, f"qvm-copy-to-vm bench-b {name} 2> /dev/null", timeout=_LONG)

        def packed(name: str = name) -> float:
            tar = f"tar cf - {name} | qrexec-client-vm bench-b test.Untar"
            return seconds_in(setting, tar, timeout=_LONG)

        ours, plain = interleaved(3, copied, packed)
        ratio = median(plain) / median(ours)
        value = f"{median(ours):.1f} s = {ratio:.2f} x tar's speed ({median(plain):.1f} s)"
        found.append(Figure(f"qvm-copy, {title}", value, "at least 0.7 x tar", ratio >= 0.7))
    return found
