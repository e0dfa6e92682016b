"""The processes a keeper started, by name, both layers of each."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insula.keeper.facts import last_of, read_facts
from insula.keeper.loop import Loop
from insula.keeper.ring import Ring
from insula.keeper.spawn import SpawnError, Spawning, parent, spawn
from insula.keeper.tun import give_back
from insula.protocol.keeper import JailKind, JailSpec

START_TIMEOUT = 15.0  # seconds until the program runs in its jail
MAX_PROCESSES = 2000
_ENTER_POLL = 0.001  # no event tells that a process became another program
_GRACE = 2.0  # seconds that bwrap has to end after its program

# Told once how a start went: the process's pid, start time and pidfd, or why there is none.
Answer = Callable[[dict[str, int] | None, int, str], None]


@dataclass(slots=True)
class _Process:
    name: str
    spec: JailSpec
    layers: Spawning
    ring: Ring
    answer: Answer | None
    start_time: int = 0
    inner_gone: bool = False
    outer_status: int | None = None
    status: int | None = None
    failure: str = "it ended in its jail's making"


class Processes:
    """Starts, ends and remembers processes; on_exit is told of each end."""

    def __init__(self, loop: Loop, on_exit: Callable[[str, int], None]) -> None:
        self._loop = loop
        self._on_exit = on_exit
        self._known: dict[str, _Process] = {}

    def start(self, name: str, spec: JailSpec, given: Sequence[int], answer: Answer) -> None:
        """Start a program; answer is called when it runs in its jail or did not come to that.

        Raises:
            SpawnError: it is nothing that may be started, or the name is taken.
        """
        known = self._known.get(name)
        if known is not None:
            if known.status is None:
                raise SpawnError(f"{name} runs already")
            self.forget(name)
        if len(self._known) >= MAX_PROCESSES and not self._forget_longest_ended():
            raise SpawnError(f"there are {MAX_PROCESSES} processes already")
        layers = spawn(spec, given)
        process = _Process(name, spec, layers, Ring(self._loop, layers.output), answer)
        self._known[name] = process
        self._loop.watch(layers.outer_fd, lambda: self._outer_gone(process))
        self._loop.watch(layers.info, lambda: self._read_info(process))
        self._loop.after(START_TIMEOUT, lambda: self._too_late(process))

    def verify(self, name: str) -> dict[str, Any]:
        """What holds of a process now; of an uplink, of the passt in it that qubes' frames reach.

        Raises:
            KeyError: there is none that runs.
        """
        process = self._started(name)
        if process.status is not None:
            raise KeyError(f"{name} has ended")
        pid = process.layers.inner
        return read_facts(last_of(pid) if process.spec.kind is JailKind.UPLINK else pid).to_json()

    def kill(self, name: str) -> None:
        """End both layers of a process; no harm when it has ended."""
        process = self._known[name]
        if process.status is None:
            process.layers.kill()

    def listing(self) -> dict[str, dict[str, Any]]:
        """Every process that started and is not forgotten."""
        return {
            name: {
                "pid": process.layers.inner,
                "start_time": process.start_time,
                "exit": process.status,
            }
            for name, process in self._known.items()
            if process.answer is None
        }

    def log(self, name: str) -> str:
        """The end of what the process wrote."""
        process = self._known[name]
        process.ring.drain()
        return process.ring.text()

    def forget(self, name: str) -> None:
        """Drop a process that has ended.

        Raises:
            KeyError: there is none. SpawnError: it runs.
        """
        process = self._known[name]
        if process.status is None:
            raise SpawnError(f"{name} still runs")
        del self._known[name]

    def _forget_longest_ended(self) -> bool:
        """Make room where nobody came back for what has ended; False when all run."""
        for name, process in self._known.items():
            if process.status is not None:
                del self._known[name]
                return True
        return False

    def running(self) -> int:
        """How many have not ended."""
        return sum(1 for process in self._known.values() if process.status is None)

    def _started(self, name: str) -> _Process:
        process = self._known[name]
        if process.answer is not None:
            raise KeyError(f"{name} has not started yet")
        return process

    def _read_info(self, process: _Process) -> None:
        layers = process.layers
        failure = ""
        try:
            if not layers.read_info():
                return
        except SpawnError as error:
            failure = str(error)
        self._loop.unwatch(layers.info)
        layers.close_info()
        if failure:
            self._fail(process, failure)
            return
        self._loop.watch(layers.inner_fd, lambda: self._inner_gone(process))
        self._enter(process)

    def _enter(self, process: _Process) -> None:
        if process.answer is None or process.status is not None or process.inner_gone:
            return
        try:
            if not process.layers.entered():
                self._loop.after(_ENTER_POLL, lambda: self._enter(process))
                return
            process.start_time = start_time(process.layers.inner)
        except (SpawnError, OSError) as error:
            self._fail(process, str(error))
            return
        answer, process.answer = process.answer, None
        started = {"pid": process.layers.inner, "start_time": process.start_time}
        answer(started, process.layers.inner_fd, "")

    def _too_late(self, process: _Process) -> None:
        if process.answer is not None and process.status is None:
            self._fail(process, f"its jail was not made within {START_TIMEOUT:.0f} s")

    def _fail(self, process: _Process, why: str) -> None:
        """End a start; it is answered when nothing of it is left."""
        process.failure = why
        process.layers.kill()

    def _inner_gone(self, process: _Process) -> None:
        """The program is gone: so has what waits for it to be."""
        self._loop.unwatch(process.layers.inner_fd)
        process.inner_gone = True
        if process.outer_status is None:
            self._loop.after(_GRACE, lambda: self._end_outer(process))
        else:
            self._over(process)

    def _end_outer(self, process: _Process) -> None:
        if process.outer_status is None:
            process.layers.kill()

    def _outer_gone(self, process: _Process) -> None:
        """The outer layer is gone: so has the program to be."""
        layers = process.layers
        self._loop.unwatch(layers.outer_fd)
        _, status = os.waitpid(layers.outer, 0)
        process.outer_status = os.waitstatus_to_exitcode(status)
        if layers.info >= 0:
            self._read_info(process)
        if layers.inner_fd < 0:
            self._end_strangers()
        if layers.inner_fd >= 0 and not process.inner_gone:
            layers.kill()
        else:
            self._over(process)

    def _end_strangers(self) -> None:
        """End what a bwrap left to us that died before it told of it."""
        known = {
            pid for one in self._known.values() for pid in (one.layers.outer, one.layers.inner)
        }
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            with suppress(OSError):
                if pid not in known and parent(pid) == os.getpid():
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _over(self, process: _Process) -> None:
        """Nothing of it runs any more."""
        layers = process.layers
        if layers.inner:
            with suppress(ChildProcessError):  # It is ours if bwrap could not wait for it.
                os.waitpid(layers.inner, os.WNOHANG)
        if layers.info >= 0:
            self._loop.unwatch(layers.info)
        layers.close()
        process.ring.end()
        process.status = process.outer_status
        assert process.status is not None
        if process.spec.kind is JailKind.UPLINK:
            give_back(process.spec.uid)
        if process.answer is None:
            self._on_exit(process.name, process.status)
            return
        answer, process.answer = process.answer, None
        self.forget(process.name)
        said = process.ring.text().strip()[-1000:]
        answer(None, -1, f"{process.failure}: {said}")


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since the host's boot."""
    after_name = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2]
    return int(after_name.split()[19])
