"""Machines without a virtual machine, for tests: each is a guest agent as an ordinary process.

It isolates nothing and says so. It keeps the engine interface honest: its ports are sockets that
it pumps itself, it has no disks, and a snapshot of it is a marker.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

from insula.daemon.engine.interface import (
    Capabilities,
    Card,
    EngineError,
    MachineSpec,
    RunState,
)
from insula.daemon.model.machine import Disk

_CHUNK = 65_536
_START_TIMEOUT = 20.0
_SOCKETS, _ACCEPTS = Path("/proc/net/unix"), 0x10000  # its column Flags: __SO_ACCEPTCON


class MemoryMachine:
    """A guest agent's process; control.sock in its run directory leads to its control port."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, ports: Path) -> None:
        self.name = name
        self._process = process
        self._ports = ports
        self._paused = False
        self._pumps: dict[int, asyncio.Task[None]] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._watch = asyncio.create_task(self._follow())
        self._console: asyncio.Task[None] | None = None
        self.memory_added = 0
        self.processors_added = 0
        self.disks: dict[str, Disk] = {}
        self.resized: dict[str, int] = {}
        self.macs: dict[int, str] = {}  # of network cards, by number

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _follow(self) -> None:
        await self._process.wait()
        for callback in self._callbacks:
            callback()

    async def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._paused = False

    async def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self._paused = True

    async def state(self) -> RunState:
        if self._process.returncode is not None:
            return RunState.GONE
        return RunState.PAUSED if self._paused else RunState.RUNNING

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self.wait_gone()
        for port in tuple(self._pumps):
            await self.part(port)
        if self._console is not None:
            self._console.cancel()
            await asyncio.gather(self._console, return_exceptions=True)

    async def wait_gone(self) -> None:
        await asyncio.shield(self._watch)

    def on_gone(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if self._process.returncode is not None:
            callback()

    async def join(self, port: int, end: int) -> None:
        await self.part(port)
        near, far = socket.socket(fileno=os.dup(end)), socket.socket(socket.AF_UNIX)
        for one in (near, far):
            one.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(far, str(self._ports / f"org.insula.data.{port}"))
        except OSError as error:
            near.close()
            far.close()
            raise EngineError(f"{self.name}: port {port} is not there: {error}") from None
        pump = self._pumps[port] = asyncio.create_task(_pump_both(near, far))
        for one in (near, far):  # Also where it ends before it began.
            pump.add_done_callback(partial(_close, one))

    async def part(self, port: int) -> None:
        pump = self._pumps.pop(port, None)
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def joined(self, port: int) -> bool:
        pump = self._pumps.get(port)
        return pump is not None and not pump.done()

    async def console(self, end: int) -> None:
        """Its console says again what is said to it."""
        if self._console is not None:
            self._console.cancel()
        near = socket.socket(fileno=os.dup(end))
        near.setblocking(False)
        self._console = asyncio.create_task(_echo(near))

    async def add_processors(self, count: int) -> None:
        self.processors_added = count

    async def grow(self, memory: int) -> None:
        self.memory_added = memory

    async def resize(self, serial: str, size: int) -> None:
        self.resized[serial] = size

    async def plug(self, disk: Disk) -> None:
        if disk.serial in self.disks:
            raise EngineError(f"{self.name} has a disk {disk.serial!r} already")
        self.disks[disk.serial] = disk

    async def unplug(self, serial: str) -> None:
        if self.disks.pop(serial, None) is None:
            raise EngineError(f"{self.name} has no disk {serial!r}")

    async def plug_card(self, card: Card) -> None:
        if card.number in self.macs:
            raise EngineError(f"{self.name} has a network card {card.number} already")
        self.macs[card.number] = card.mac

    async def unplug_card(self, number: int) -> None:
        if self.macs.pop(number, None) is None:
            raise EngineError(f"{self.name} has no network card {number}")

    async def cards(self) -> frozenset[int]:
        return frozenset(self.macs)

    async def save(self, directory: Path) -> None:
        for name in ("ram", "state"):
            (directory / name).write_bytes(b"")
        await self.kill()

    async def close(self) -> None:
        """Connections go on, as they do without a daemon."""


class MemoryEngine:
    """Starts guest agents as processes."""

    name: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self.capabilities = Capabilities(
            clone=True, boundary=False, warning="in-memory engine: for tests, isolates nothing"
        )
        self._machines: dict[str, MemoryMachine] = {}
        self.images: set[tuple[Path, str]] = set()  # what would be shared

    @property
    def title(self) -> str:
        return "memory"

    async def machines(self) -> tuple[str, ...]:
        return tuple(self._machines)

    async def release(self, name: str) -> None:
        machine = self._machines.pop(name, None)
        if machine is not None:
            await machine.kill()

    async def drop_images(self, golden: Path, *, kept: Collection[str] = ()) -> int:
        """Forget who shared a snapshot's memory: here nobody really does."""
        dropped = {
            (place, group) for place, group in self.images if place == golden and group not in kept
        }
        self.images -= dropped
        return len(dropped)

    def snapshot_key(self) -> str:
        return "memory"

    async def launch(self, spec: MachineSpec) -> MemoryMachine:
        if spec.golden is not None and spec.group is not None:
            self.images.add((spec.golden, spec.group))
        ports = spec.run / "ports"
        ports.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "INSULA_PORTS_DIR": str(ports),
            "INSULA_NO_SYSTEM": "1",
            "INSULA_AGENT_SOCKET": str(ports / "agent"),
            "INSULA_QUBESDB_SOCKET": str(ports / "qubesdb"),
            **({"INSULA_PARKED": "1"} if spec.golden is not None else {}),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "insula.guest"),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        machine = MemoryMachine(spec.name, process, ports)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                # The agent opens its control port last.
                await _listens(ports / "org.insula.control", machine)
        except TimeoutError:
            await machine.kill()
            raise EngineError(f"{spec.name}: its agent opened no ports") from None
        except BaseException:
            await machine.kill()
            raise
        link = spec.run / "control.sock"
        link.unlink(missing_ok=True)
        link.symlink_to("ports/org.insula.control")
        self._machines[spec.name] = machine
        return machine

    async def adopt(self, name: str, _run: Path) -> MemoryMachine | None:
        machine = self._machines.get(name)
        if machine is None or await machine.state() is RunState.GONE:
            return None
        return machine


async def _listens(path: Path, machine: MemoryMachine) -> None:
    """Wait for a socket that takes connections: it has its name a moment earlier."""
    while not _is_listening(path):
        if await machine.state() is RunState.GONE:
            raise EngineError(f"{machine.name}: its agent ended")
        await asyncio.sleep(0.01)


def _is_listening(path: Path) -> bool:
    if not path.exists():
        return False
    for line in _SOCKETS.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[-1] == str(path):
            return bool(int(fields[3], 16) & _ACCEPTS)
    return False


async def _pump_both(near: socket.socket, far: socket.socket) -> None:
    """Carry bytes both ways until one side ends, as a port's connection does."""
    ways = [asyncio.create_task(_pump(near, far)), asyncio.create_task(_pump(far, near))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


def _close(one: socket.socket, _pump: "asyncio.Task[None]") -> None:
    one.close()


async def _echo(end: socket.socket) -> None:
    with end:
        await _pump(end, end)


async def _pump(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(target, data)
