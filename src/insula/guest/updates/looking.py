"""Looking for updates, and telling dom0 whether there are any (in-qube.md section 6)."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from insula.guest.commands.calling import call_words
from insula.guest.updates.apt import Apt

_NOTIFY = "qubes.NotifyUpdates"
_TIMEOUT = 120.0  # seconds
_FORGETFUL = Path("/run/qubes/persistent-none")
_ROUTES = Path("/proc/net/route")
_PROXY = Path("/run/insula/apt-proxy.conf")
_ANYWHERE = "00000000"


def notify(count: int) -> int:
    """Tell dom0; returns the call's exit code."""
    said = b"1\n" if count else b"0\n"
    words = call_words("dom0", _NOTIFY)
    return subprocess.run(words, input=said, timeout=_TIMEOUT, check=False).returncode


def worth_it() -> bool:
    """Whether there is a way to the mirrors, and a qube that is not gone with its call."""
    if _FORGETFUL.exists():
        return False
    if _PROXY.exists() and _PROXY.stat().st_size:
        return True
    routes = _ROUTES.read_text().splitlines()[1:] if _ROUTES.exists() else []
    return any(line.split()[1] == _ANYWHERE for line in routes)


def main(apt: Apt | None = None, tell: Callable[[int], int] = notify) -> int:
    """Look, and tell; the exit code."""
    if not worth_it():
        return 0
    manager = apt or Apt()
    try:
        manager.refresh()
        return tell(len(manager.upgrades()))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"qubes-update-check: {error}", file=sys.stderr)
        return 1
