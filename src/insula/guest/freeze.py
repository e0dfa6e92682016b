"""Freezing everything but the agent, for a snapshot; cgroup v2."""

import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_FREEZE_TIMEOUT = 20.0
_POLL = 0.02


def _others() -> list[Path]:
    """Top-level cgroups without the agent in them."""
    own = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2].split("/")[1]
    return [entry for entry in _ROOT.iterdir() if entry.is_dir() and entry.name != own]


def freeze() -> None:
    """Freeze all others; returns when they are.

    Raises:
        TimeoutError: some did not freeze.
    """
    others = _others()
    for group in others:
        (group / "cgroup.freeze").write_text("1")
    deadline = time.monotonic() + _FREEZE_TIMEOUT
    for group in others:
        while not _is_frozen(group):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{group.name} did not freeze")
            time.sleep(_POLL)


def thaw() -> None:
    """Let all others go on."""
    for group in _others():
        (group / "cgroup.freeze").write_text("0")


def free_to_run() -> int:
    """How many processes could run now, besides kernel threads and the agent."""
    frozen = {group.name for group in _others() if _is_frozen(group)}
    count = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            place = Path(entry.path)
            (place / "exe").readlink()  # Fails for kernel threads.
            group = (place / "cgroup").read_text().strip().rpartition(":")[2].split("/")[1]
        except (OSError, IndexError):
            continue
        if group not in frozen:
            count += 1
    return count


def settle() -> None:
    """Write everything out and drop clean caches, so that a snapshot is small and coherent."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _is_frozen(group: Path) -> bool:
    return "frozen 1" in (group / "cgroup.events").read_text()
