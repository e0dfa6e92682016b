"""Qubes whose agent is the test: every byte of their ports is its to say, or to leave unsaid."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from insula.daemon.engine.interface import Capabilities, MachineSpec
from insula.daemon.engine.memory.engine import MemoryEngine, MemoryMachine
from insula.daemon.lifecycle.running import machine_name
from insula.daemon.model.qube import Qube
from insula.protocol.control import (
    AgentHello,
    AgentState,
    Attach,
    ControlType,
    Seeded,
    Session,
    Status,
)
from insula.protocol.frames import RawFrame, frame, take_raw_frame
from insula.protocol.qrexec import MessageType
from insula.protocol.resync import CONTROL_PREFIX, NONCE_SIZE
from tests.serving import TIMEOUT, Instance

_TRIGGER4 = struct.Struct("<64s64s32s")


def trigger(target: str, service: str, number: int = 0) -> bytes:
    """A whole request for a call, by an id of its own."""
    head = _TRIGGER4.pack(b"", target.encode(), b"SOCKET%d" % number)
    return frame(MessageType.TRIGGER_SERVICE4, head + service.encode() + b"\0")


class HostileMachine(MemoryMachine):
    """A process that does nothing, and ports that are the test's. ends: of data ports, joined."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, ports: Path) -> None:
        super().__init__(name, process, ports)
        self.ends: dict[int, socket.socket] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.setblocking(False)
        self.listener.bind(str(ports / "org.insula.control"))
        self.listener.listen()
        self.control = socket.socket(socket.AF_UNIX)
        self.received = bytearray()

    async def join(self, port: int, end: int) -> None:
        await self.part(port)
        self.ends[port] = socket.fromfd(end, socket.AF_UNIX, socket.SOCK_STREAM)
        self.ends[port].setblocking(False)

    async def part(self, port: int) -> None:
        if port in self.ends:
            self.ends.pop(port).close()

    async def joined(self, port: int) -> bool:
        return port in self.ends

    async def kill(self) -> None:
        await super().kill()
        for port in tuple(self.ends):
            await self.part(port)
        self.listener.close()
        self.control.close()

    async def opened(self) -> bytes:
        """Take the daemon's connection; the nonce that it begins with."""
        loop = asyncio.get_running_loop()
        self.control.close()
        self.control, _ = await loop.sock_accept(self.listener)
        self.control.setblocking(False)
        self.received.clear()
        marker = await self._exactly(len(CONTROL_PREFIX) + NONCE_SIZE)
        return marker[len(CONTROL_PREFIX) :]

    async def behave(
        self, state: AgentState = AgentState.WAITING, sessions: tuple[Session, ...] = ()
    ) -> None:
        """Do what an agent does until its qube is ready."""
        await self.say(CONTROL_PREFIX + await self.opened())
        await self.say(AgentHello(1, state, sessions).encode())
        if state is AgentState.WAITING:
            await self.heard(ControlType.IDENTITY)
            await self.say(Seeded(0).encode() + Status(0).encode(ControlType.READY))

    async def say(self, data: bytes) -> None:
        async with asyncio.timeout(TIMEOUT):
            await asyncio.get_running_loop().sock_sendall(self.control, data)

    def say_at_once(self, data: bytes, most: int) -> int:
        """Say it again and again until it is not taken any more, or most bytes were."""
        said = 0
        with suppress(BlockingIOError):
            while said < most:
                said += self.control.send(data)
        return said

    async def hear(self) -> RawFrame | None:
        """The next message; None at the end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT):
            while (raw := take_raw_frame(self.received, 1 << 20)) is None:
                try:
                    data = await loop.sock_recv(self.control, 65_536)
                except OSError:
                    data = b""
                if not data:
                    return None
                self.received += data
        return raw

    async def heard(self, kind: int) -> bytes:
        """The body of the next message of a kind; what comes before is dropped."""
        while (raw := await self.hear()) is not None:
            if raw.type == kind:
                return raw.body
        raise ConnectionError("the daemon closed the control port")

    async def attached(self, kind: MessageType) -> tuple[Attach, bytes]:
        """Where the next data connection lies, and what it is for."""
        attach = Attach.decode(await self.heard(ControlType.ATTACH))
        return attach, await self.heard(kind)

    async def _exactly(self, size: int) -> bytes:
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(TIMEOUT):
            while len(data) < size and (
                more := await loop.sock_recv(self.control, size - len(data))
            ):
                data += more
        return data


class HostileEngine(MemoryEngine):
    """An in-memory engine some of whose machines are the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(clone=False, boundary=False)
        self.hostile: set[str] = set()
        self.launched: dict[str, asyncio.Future[HostileMachine]] = {}

    async def launch(self, spec: MachineSpec) -> MemoryMachine:
        if spec.name not in self.hostile:
            return await super().launch(spec)
        ports = spec.run / "ports"
        ports.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = await asyncio.create_subprocess_exec("sleep", "infinity", start_new_session=True)
        machine = HostileMachine(spec.name, process, ports)
        (spec.run / "control.sock").symlink_to("ports/org.insula.control")
        self._machines[spec.name] = machine
        self._launch(spec.name).set_result(machine)
        return machine

    def _launch(self, name: str) -> "asyncio.Future[HostileMachine]":
        future = self.launched.get(name)
        if future is None or future.done():
            future = self.launched[name] = asyncio.get_running_loop().create_future()
        return future

    async def machine_of(self, qube: Qube) -> HostileMachine:
        """The machine of a hostile qube, once it is launched."""
        name = machine_name(qube.uuid)
        async with asyncio.timeout(TIMEOUT):
            return await asyncio.shield(self.launched.get(name) or self._launch(name))


async def hostile(instance: Instance, name: str) -> Qube:
    """Make a qube whose agent is the test."""
    engine = instance.world.engine
    assert isinstance(engine, HostileEngine)
    qube = await instance.qube(name)
    engine.hostile.add(machine_name(qube.uuid))
    return qube


@asynccontextmanager
async def starting(instance: Instance, qube: Qube) -> AsyncIterator[HostileMachine]:
    """A hostile qube while it is being started, which is given up with the block."""
    engine = instance.world.engine
    assert isinstance(engine, HostileEngine)
    start = asyncio.create_task(instance.power.start(qube))
    try:
        yield await engine.machine_of(qube)
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)


async def started(instance: Instance, name: str) -> HostileMachine:
    """A hostile qube that came up as others do."""
    qube = await hostile(instance, name)
    engine = instance.world.engine
    assert isinstance(engine, HostileEngine)
    start = asyncio.create_task(instance.power.start(qube))
    machine = await engine.machine_of(qube)
    await machine.behave()
    await start
    return machine
