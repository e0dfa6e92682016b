"""The service that installs all updates in this qube, and says how far it is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from insula.guest.services.hooks import run_hooks
from insula.guest.updates.apt import FETCHING, UNPACKING, Apt
from insula.guest.updates.looking import notify
from insula.protocol.updating import Package, Progress

_INSTALLED = Path("/etc/qubes/post-install.d")
_REFRESHED, _FOUND, _FETCHED = 20, 25, 60  # per cent of the whole, by then


def main(apt: Apt | None = None, tell_dom0: Callable[[int], int] = notify) -> int:
    """Serve one call; its exit code. What apt says goes to standard error."""
    manager = apt or Apt(output=sys.stderr)
    try:
        return _install(manager, tell_dom0)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"the updates were not installed: {error}", file=sys.stderr)
        return 1


def _install(manager: Apt, tell_dom0: Callable[[int], int]) -> int:
    said = _Said()
    manager.refresh(lambda _phase, percent: said.share(percent, 0, _REFRESHED))
    said.line(Progress(_REFRESHED))
    packages = manager.upgrades()
    for package in packages:
        said.line(package)
    said.line(Progress(_FOUND))
    if packages:
        parts = {FETCHING: (_FOUND, _FETCHED), UNPACKING: (_FETCHED, 100)}
        manager.upgrade(lambda phase, percent: said.share(percent, *parts[phase]))
    code = run_hooks(_INSTALLED)
    left = len(manager.upgrades()) if packages else 0
    said.line(Progress(100))
    if tell_dom0(left):
        print("dom0 could not be told that there are no more updates", file=sys.stderr)
    return code


class _Said:
    """Standard output, on which no progress goes back."""

    def __init__(self) -> None:
        self._percent = -1

    def share(self, percent: int, low: int, high: int) -> None:
        self.line(Progress(low + percent * (high - low) // 100))

    def line(self, line: Progress | Package) -> None:
        if isinstance(line, Progress):
            if line.percent <= self._percent:
                return
            self._percent = line.percent
        print(line, flush=True)
