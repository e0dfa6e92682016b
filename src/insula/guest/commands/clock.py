"""qvm-sync-clock, and the service qubes.SetDateTime: a time from another qube (in-qube.md 5)."""

import subprocess
import sys
import time
from collections.abc import Sequence

from insula.guest.commands.calling import call_words
from insula.protocol.clock import LONGEST, SERVICE, parse_time

_TIMEOUT = 60.0  # seconds
_CLOSE = 2  # seconds off that a clock may be and is left alone


def sync(words: Sequence[str] | None = None) -> int:
    """Ask dom0, or whom the policy names, for the time, and set the clock to it."""
    if sys.argv[1:] if words is None else words:
        print("usage: qvm-sync-clock", file=sys.stderr)
        return 1
    done = subprocess.run(
        call_words("@default", SERVICE), stdout=subprocess.PIPE, timeout=_TIMEOUT, check=False
    )
    if done.returncode:
        print("qvm-sync-clock: the time is not to be had", file=sys.stderr)
        return 1
    return _apply("qvm-sync-clock", done.stdout)


def set_date_time() -> int:
    """The service: a line on standard input."""
    untrusted = sys.stdin.buffer.readline(LONGEST + 1)
    try:
        off = abs(parse_time(untrusted) - time.time_ns()) / 1e9
    except ValueError as error:
        print(f"qubes.SetDateTime: {error}", file=sys.stderr)
        return 1
    return 0 if off <= _CLOSE else _apply("qubes.SetDateTime", untrusted)


def _apply(program: str, untrusted: bytes) -> int:
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, parse_time(untrusted))
    except (ValueError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0
