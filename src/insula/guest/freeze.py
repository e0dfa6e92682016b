"""Freezing everything but the agent, for a snapshot; cgroup v2."""

import os
import time
from contextlib import suppress

_ROOT = "/sys/fs/cgroup"
_FREEZE_TIMEOUT = 20.0
_POLL = 0.02
_LONGEST = 65_536  # bytes of a cgroup's file that are looked at


class NotFrozenError(Exception):
    """Something besides the agent could run, which must not be."""


class Frozen:
    """All cgroups without the agent, frozen.

    Their files stay open, so that a clone counts and thaws with a handful of system calls.
    """

    def __init__(self) -> None:
        """Freeze them; returns when they are.

        Raises:
            NotFrozenError: some did not freeze, or something runs beside them.
        """
        path = _own_path()
        own = path.split("/")[1]
        groups = [entry.path for entry in os.scandir(_ROOT) if entry.is_dir() and entry.name != own]
        self._groups = groups
        self._switches = [os.open(f"{group}/cgroup.freeze", os.O_RDWR) for group in groups]
        self._states = [os.open(f"{group}/cgroup.events", os.O_RDONLY) for group in groups]
        self._own = os.open(f"{_ROOT}{path}/cgroup.procs", os.O_RDONLY)
        for switch in self._switches:
            os.write(switch, b"1")
        deadline = time.monotonic() + _FREEZE_TIMEOUT
        while self.free_to_run() or _outside({path}, {*map(os.path.basename, groups)}):
            if time.monotonic() > deadline:
                raise NotFrozenError("something did not freeze")
            time.sleep(_POLL)

    def free_to_run(self) -> int:
        """How many processes could run now, besides the agent and kernel threads.

        Looks into the agent's cgroup and those that have to be frozen. There was nothing elsewhere
        when they were, and only they could have put something there.
        """
        count = os.pread(self._own, _LONGEST, 0).count(b"\n") - 1
        for state, group in zip(self._states, self._groups, strict=True):
            if b"frozen 1" not in os.pread(state, _LONGEST, 0):
                count += _members(group)
        return count

    def thaw(self) -> None:
        """Let all others go on."""
        for switch in self._switches:
            os.write(switch, b"0")
        for descriptor in (*self._switches, *self._states, self._own):
            os.close(descriptor)


def _own_path() -> str:
    with open("/proc/self/cgroup", encoding="ascii") as opened:  # noqa: PTH123
        return opened.read().strip().rpartition(":")[2]


def _members(group: str) -> int:
    """How many processes a cgroup and those below it hold."""
    with open(f"{group}/cgroup.procs", "rb") as opened:  # noqa: PTH123
        count = opened.read().count(b"\n")
    below = [entry.path for entry in os.scandir(group) if entry.is_dir(follow_symlinks=False)]
    return count + sum(map(_members, below))


def _outside(paths: set[str], groups: set[str]) -> int:
    """How many processes, kernel threads aside, are in none of these cgroups nor below groups."""
    count = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(OSError, IndexError):
            os.readlink(f"{entry.path}/exe")  # noqa: PTH115 - fails for kernel threads
            with open(f"{entry.path}/cgroup", encoding="ascii") as opened:  # noqa: PTH123
                path = opened.read().strip().rpartition(":")[2]
            count += path not in paths and path.split("/")[1] not in groups
    return count
