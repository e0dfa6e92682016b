"""Programs of a qube's owner that are told of its links (network-firewall.md sections 3, 4, 9)."""

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from insula.guest.folders import names_in

_TIMEOUT = 30.0  # seconds that a client's link waits for one
_TIMEOUT_OF_CHANGE = 300.0
_CHANGE_HOOKS = ("qubes-ip-change-hook", "qubes_ip_change_hook")


def client_link(config: Path, state: str, name: str, address: str) -> None:
    """Tell of a client's link, `online` or `offline`, and wait."""
    for path in names_in(str(config / "network-hooks.d")):
        _run([path, state, name, "vif", address], _TIMEOUT)


def uplink_changed(config: Path) -> None:
    """Tell that this qube has an uplink now, without waiting."""
    argvs = [[str(config / name)] for name in _CHANGE_HOOKS]
    if any(map(_is_executable, argvs)):
        threading.Thread(target=_run_all, args=(argvs,), daemon=True).start()


def _run_all(argvs: Sequence[Sequence[str]]) -> None:
    for argv in argvs:
        _run(argv, _TIMEOUT_OF_CHANGE)


def _run(argv: Sequence[str], timeout: float) -> None:
    if not _is_executable(argv):
        return
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=timeout, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"network hook: {error}", flush=True)


def _is_executable(argv: Sequence[str]) -> bool:
    path = argv[0]
    return os.access(path, os.X_OK) and Path(path).is_file()
