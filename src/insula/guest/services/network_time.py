"""The service qubes.SyncNtpClock: have the clock qube take the time from the network now."""

import subprocess
import sys
import time
from pathlib import Path

_UNIT = "systemd-timesyncd.service"
_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")  # touched by it each time it was
_ON = Path("/run/qubes-service/clocksync")
_RESTART_TIMEOUT, _TIMEOUT = 20.0, 30.0  # seconds
_POLL = 0.1


def main() -> int:
    """Serve one call; 1 where the time was not to be had."""
    if not _ON.exists():
        print("this is no clock qube: its service clocksync is off", file=sys.stderr)
        return 1
    try:
        _SYNCHRONISED.unlink(missing_ok=True)
        subprocess.run(["systemctl", "restart", _UNIT], timeout=_RESTART_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{_UNIT}: {error}", file=sys.stderr)
        return 1
    deadline = time.monotonic() + _TIMEOUT
    while not _SYNCHRONISED.exists():
        if time.monotonic() > deadline:
            print("no server has told the time", file=sys.stderr)
            return 1
        time.sleep(_POLL)
    return 0
