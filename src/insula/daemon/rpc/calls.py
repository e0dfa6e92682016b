"""Data connections of one running qube: opened, handed over, and taken back at their end."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from insula.daemon.rpc.agent_link import AgentLink
from insula.daemon.rpc.ports import Direction, Holder, PortPool
from insula.protocol.control import Attach, Session
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.qrexec import ExecParameters, MessageType
from insula.protocol.resync import NONCE_SIZE

FIRST_QREXEC_PORT = 513
QREXEC_PORTS = 256
PORT_TIMEOUT = 60.0  # seconds a call waits for a data port
GRACE = 10.0  # seconds an agent has to end a connection whose other end is gone
DRAIN_POLL = 1.0  # seconds between looks at an end that a former daemon handed out

log = logging.getLogger(__name__)


class Joiner(Protocol):
    """What calls need of a machine."""

    async def join(self, port: int, end: int) -> None: ...

    async def part(self, port: int) -> None: ...

    async def joined(self, port: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class DataConnection:
    """The local end of a data connection. end is the receiver's to close."""

    domain: int
    port: int
    nonce: bytes
    end: int


@dataclass(slots=True)
class _Open:
    index: int
    known_caller: bool = True
    agent_over: asyncio.Event = field(default_factory=asyncio.Event)


class Calls:
    """The data connections of one running qube."""

    def __init__(self, qube: str, machine: Joiner, link: AgentLink, pool: PortPool) -> None:
        self._qube = qube
        self._machine = machine
        self._link = link
        self._pool = pool
        self._open: dict[tuple[int, int], _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        link.on_qrexec = self._take
        self.on_trigger: Callable[[MessageType, bytes], None] = lambda _type, _body: None
        self.on_idle: Callable[[], None] = lambda: None

    @property
    def idle(self) -> bool:
        """Whether no connection is open."""
        return not self._open

    def resume(self, sessions: tuple[Session, ...]) -> None:
        """Take over connections that an earlier daemon opened."""
        for one in sessions:
            self._pool.claim(one.index, Holder(Direction.INCOMING, one.domain))
            self._open[one.domain, one.port] = _Open(one.index, known_caller=False)
            self._spawn(self._finish_unknown((one.domain, one.port)))

    async def open(self, message_type: MessageType, text: str, *, peer: int = 0) -> DataConnection:
        """Have the agent run text (qrexec-wire.md section 8) and return the caller's end of it.

        Raises:
            ReportableError: every data port is in use, or the agent or the machine is gone.
        """
        holder = Holder(Direction.INCOMING, peer)
        try:
            index = await self._pool.acquire(holder, PORT_TIMEOUT)
        except TimeoutError:
            error = ReportableError(f"{self._qube}: every data port is in use")
            error.hint = "Wait for calls to end, or end some."
            raise error from None
        near, far = socket.socketpair()
        opened = _Open(index)
        try:
            port = self._free_port(peer)
            # Taken before anything is waited for: no other call may get the number meanwhile.
            self._open[peer, port] = opened
            nonce = secrets.token_bytes(NONCE_SIZE)
            await self._machine.join(index, far.fileno())
            body = ExecParameters(peer, port, text).encode()
            self._link.attach(Attach(peer, port, index, nonce), message_type, body)
        except BaseException:
            near.close()
            with suppress(ReportableError):
                await self._machine.part(index)
            self._open = {key: one for key, one in self._open.items() if one is not opened}
            self._pool.release(index)
            raise
        finally:
            far.close()
        return DataConnection(peer, port, nonce, near.detach())

    def caller_over(self, connection: DataConnection) -> None:
        """The caller is done with its end; the port returns once the agent is done too."""
        key = (connection.domain, connection.port)
        self._spawn(self._finish(key, self._open[key]))

    async def close(self) -> None:
        """Stop looking after connections; they go on."""
        for task in tuple(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _free_port(self, peer: int) -> int:
        for port in range(FIRST_QREXEC_PORT, FIRST_QREXEC_PORT + QREXEC_PORTS):
            if (peer, port) not in self._open:
                return port
        raise ReportableError(f"{self._qube}: every qrexec port is in use")

    def _take(self, message_type: MessageType, untrusted: bytes) -> None:
        match message_type:
            case MessageType.CONNECTION_TERMINATED:
                over = ExecParameters.decode(untrusted)
                found = self._open.get((over.domain, over.port))
                if found is not None:
                    found.agent_over.set()
            case MessageType.HELLO:
                pass
            case MessageType.TRIGGER_SERVICE3 | MessageType.TRIGGER_SERVICE4:
                self.on_trigger(message_type, untrusted)
            case _:
                raise ProtocolError(f"{message_type.name} is not an agent's to send")

    async def _finish(self, key: tuple[int, int], found: _Open) -> None:
        if not await self._agent_over(found):
            # Its end may still lie in some process that inherited it: take it away.
            with suppress(ReportableError):
                await self._machine.part(found.index)
            if not await self._agent_over(found):
                log.warning("agent keeps a connection", extra={"qube": self._qube, "port": key[1]})
        self._forget(key, found)

    async def _agent_over(self, found: _Open) -> bool:
        try:
            async with asyncio.timeout(GRACE):
                await found.agent_over.wait()
        except TimeoutError:
            return False
        return True

    async def _finish_unknown(self, key: tuple[int, int]) -> None:
        found = self._open[key]
        await found.agent_over.wait()
        # The caller may still read what is on its way; nothing tells when it ends.
        with suppress(ReportableError):
            while await self._machine.joined(found.index):
                await asyncio.sleep(DRAIN_POLL)
        self._forget(key, found)

    def _forget(self, key: tuple[int, int], found: _Open) -> None:
        if self._open.get(key) is found:
            del self._open[key]
            self._pool.release(found.index)
            if self.idle:
                self.on_idle()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
