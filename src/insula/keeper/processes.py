"""The processes a keeper started, by name."""

import os
import selectors
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insula.keeper.facts import read_facts
from insula.keeper.ring import Ring
from insula.keeper.spawn import Spawned, spawn
from insula.protocol.keeper import JailSpec


@dataclass(slots=True)
class _Process:
    spawned: Spawned
    start_time: int
    ring: Ring
    status: int | None = None
    reading: bool = True


class Processes:
    """Starts, ends and remembers processes; on_exit is told of each end."""

    def __init__(
        self, selector: selectors.BaseSelector, on_exit: Callable[[str, int], None]
    ) -> None:
        self._selector = selector
        self._on_exit = on_exit
        self._known: dict[str, _Process] = {}

    def start(self, name: str, spec: JailSpec, given: Sequence[int]) -> tuple[dict[str, Any], int]:
        """Start a program; returns its facts and a pidfd that stays ours.

        Raises:
            KeyError: a process of that name runs. SpawnError: it did not start.
        """
        known = self._known.get(name)
        if known is not None:
            if known.status is None:
                raise KeyError(f"{name} runs already")
            self.forget(name)
        spawned = spawn(spec, given)
        process = _Process(spawned, start_time(spawned.inner), Ring(spawned.output))
        self._known[name] = process
        self._selector.register(spawned.output, selectors.EVENT_READ, lambda: self._drain(name))
        self._selector.register(spawned.outer_fd, selectors.EVENT_READ, lambda: self._over(name))
        self._selector.register(spawned.inner_fd, selectors.EVENT_READ, lambda: self._inner(name))
        return {"pid": spawned.inner, "start_time": process.start_time}, spawned.inner_fd

    def verify(self, name: str) -> dict[str, Any]:
        """What holds of a process now."""
        return read_facts(self._running(name).spawned.inner).to_json()

    def kill(self, name: str) -> None:
        """End both layers of a process; no harm when it has ended."""
        process = self._known[name]
        if process.status is None:
            self._kill_both(process)

    def listing(self) -> dict[str, dict[str, Any]]:
        """Every process that is not forgotten."""
        return {
            name: {
                "pid": process.spawned.inner,
                "start_time": process.start_time,
                "exit": process.status,
            }
            for name, process in self._known.items()
        }

    def log(self, name: str) -> str:
        """The end of what a process wrote."""
        process = self._known[name]
        if process.reading:
            process.ring.drain()
        return process.ring.text()

    def forget(self, name: str) -> None:
        """Drop a process that has ended.

        Raises:
            KeyError: there is none, or it runs.
        """
        process = self._known[name]
        if process.status is None:
            raise KeyError(f"{name} still runs")
        del self._known[name]
        self._stop_reading(process)

    def running(self) -> int:
        """How many have not ended."""
        return sum(1 for process in self._known.values() if process.status is None)

    def _running(self, name: str) -> _Process:
        process = self._known[name]
        if process.status is not None:
            raise KeyError(f"{name} has ended")
        return process

    def _drain(self, name: str) -> None:
        process = self._known[name]
        if process.reading and not process.ring.drain():
            self._stop_reading(process)

    def _stop_reading(self, process: _Process) -> None:
        if process.reading:
            process.reading = False
            self._selector.unregister(process.spawned.output)
            os.close(process.spawned.output)

    def _inner(self, name: str) -> None:
        """The program is gone: so must be what waits for it."""
        process = self._known[name]
        self._selector.unregister(process.spawned.inner_fd)
        os.close(process.spawned.inner_fd)
        process.spawned.inner_fd = -1

    def _over(self, name: str) -> None:
        """The outer layer is gone: so must be the program."""
        process = self._known[name]
        _, status = os.waitpid(process.spawned.outer, 0)
        self._kill_both(process)
        self._selector.unregister(process.spawned.outer_fd)
        os.close(process.spawned.outer_fd)
        process.status = os.waitstatus_to_exitcode(status)
        self._on_exit(name, process.status)

    def _kill_both(self, process: _Process) -> None:
        for pidfd in (process.spawned.inner_fd, process.spawned.outer_fd):
            if pidfd >= 0:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since the host's boot."""
    after_name = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2]
    return int(after_name.split()[19])
