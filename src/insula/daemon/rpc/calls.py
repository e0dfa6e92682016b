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
from insula.protocol.frames import frame
from insula.protocol.qrexec import ExecParameters, MessageType
from insula.protocol.resync import NONCE_SIZE

FIRST_QREXEC_PORT = 513
QREXEC_PORTS = 256
PORT_TIMEOUT = 60.0  # seconds a call waits for a data port
GRACE = 10.0  # seconds an agent has to end a connection whose other end is gone
MOST_EARLY = 64  # calls that a qube asks for before it is up
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


@dataclass(slots=True, eq=False)
class Opened:
    """One end of a data connection that a qube has or is about to get.

    peer: the other end's domain number. port: qrexec's number of it. index: the data port it lies
    on. over: once the agent said that it is done with it, or was given up.
    """

    peer: int
    port: int
    index: int
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Calls:
    """The data connections of one running qube."""

    def __init__(self, qube: str, machine: Joiner, link: AgentLink, pool: PortPool) -> None:
        self._qube = qube
        self._machine = machine
        self._link = link
        self._pool = pool
        self._open: dict[tuple[int, int], Opened] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        link.on_qrexec = self._take
        link.on_lost = self.gone
        self._early: list[tuple[MessageType, bytes]] = []
        self._on_trigger: Callable[[MessageType, bytes], None] | None = None
        self.on_idle: Callable[[], None] = lambda: None

    @property
    def idle(self) -> bool:
        """Whether no connection is open."""
        return not self._open

    def on_trigger(self, take: Callable[[MessageType, bytes], None]) -> None:
        """Say what takes the calls that the qube asks for, and those that it asked for so far."""
        self._on_trigger = take
        early, self._early = self._early, []
        for message_type, untrusted in early:
            take(message_type, untrusted)

    def resume(self, sessions: tuple[Session, ...]) -> None:
        """Take over connections that an earlier daemon opened."""
        for one in sessions:  # As the agent says, which may say anything.
            key = (one.domain, one.port)
            if key in self._open or not self._pool.claim(
                one.index, Holder(Direction.INCOMING, one.domain)
            ):
                log.warning("no session of ours", extra={"qube": self._qube, "session": str(one)})
                continue
            opened = Opened(one.domain, one.port, one.index)
            self._open[key] = opened
            self._spawn(self._finish_unknown(opened))

    async def open(self, message_type: MessageType, text: str) -> DataConnection:
        """Have the agent run text (qrexec-wire.md section 8) and return the caller's end of it.

        Raises:
            ReportableError: every data port is in use, or the agent or the machine is gone.
        """
        opened = await self.reserve(Direction.INCOMING, 0)
        near, far = socket.socketpair()
        with far:
            try:
                nonce = secrets.token_bytes(NONCE_SIZE)
                await self.join(opened, far.fileno())
                self.execute(opened, nonce, message_type, text)
            except BaseException:
                near.close()
                await self.abandon(opened)
                raise
        return DataConnection(opened.peer, opened.port, nonce, near.detach())

    def caller_over(self, connection: DataConnection) -> None:
        """The caller is done with its end; the port returns once the agent is done too."""
        self.other_over(self._open[connection.domain, connection.port])

    def other_over(self, opened: Opened) -> None:
        """As caller_over, of a connection whose other end is dom0's."""
        self._spawn(self._finish(opened))

    async def reserve(self, direction: Direction, peer: int) -> Opened:
        """A data port and a number for a connection with a peer, waiting behind earlier ones.

        Raises:
            ReportableError: every one is in use, and was for long.
        """
        try:
            index = await self._pool.acquire(Holder(direction, peer), PORT_TIMEOUT)
        except TimeoutError:
            error = ReportableError(f"{self._qube}: every data port is in use")
            error.hint = "Wait for calls to end, or end some."
            raise error from None
        try:
            opened = Opened(peer, self._free_port(peer), index)
        except BaseException:
            self._pool.release(index)
            raise
        # Taken before anything is waited for: no other call may get the number meanwhile.
        self._open[peer, opened.port] = opened
        return opened

    async def join(self, opened: Opened, end: int) -> None:
        """Connect a reserved data port with a descriptor, which stays the caller's.

        Raises:
            ReportableError: the machine is gone.
        """
        await self._machine.join(opened.index, end)

    def execute(self, opened: Opened, nonce: bytes, message_type: MessageType, text: str) -> None:
        """Have the agent run text over a connection that was joined.

        Raises:
            ReportableError: it cannot be reached.
        """
        body = ExecParameters(opened.peer, opened.port, text).encode()
        self._link.attach(_attach(opened, nonce), message_type, body)

    def accept(self, opened: Opened, nonce: bytes, request_id: bytes) -> None:
        """Tell the agent that a call which its qube asked for goes over a connection.

        Raises:
            ReportableError: it cannot be reached.
        """
        body = ExecParameters(opened.peer, opened.port).encode() + request_id
        self._link.attach(_attach(opened, nonce), MessageType.SERVICE_CONNECT, body)

    async def abandon(self, opened: Opened) -> None:
        """Take back what was reserved for a connection of which the agent never knew."""
        with suppress(ReportableError):
            await self._machine.part(opened.index)
        self._forget(opened)

    def follow(self, opened: Opened, other: Opened) -> None:
        """Look after one end of a connection between two qubes, whose other end is another's.

        Once either agent is done, the one here sees the connection end, if it did not yet.
        """
        self._spawn(self._finish_joined(opened, other))

    def refuse(self, request_id: bytes) -> None:
        """Tell the agent that a call which its qube asked for is not to be.

        Raises:
            ReportableError: it cannot be reached.
        """
        self._link.send(frame(MessageType.SERVICE_REFUSED, request_id))

    def gone(self) -> None:
        """Nothing more is heard of the qube: the other ends of its calls are to see that."""
        for opened in self._open.values():
            opened.over.set()

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
                    found.over.set()
            case MessageType.HELLO:
                pass
            case MessageType.TRIGGER_SERVICE3 | MessageType.TRIGGER_SERVICE4:
                self._take_trigger(message_type, untrusted)
            case _:
                raise ProtocolError(f"{message_type.name} is not an agent's to send")

    def _take_trigger(self, message_type: MessageType, untrusted: bytes) -> None:
        if self._on_trigger is not None:
            self._on_trigger(message_type, untrusted)
        elif len(self._early) < MOST_EARLY:
            self._early.append((message_type, untrusted))
        else:
            raise ProtocolError("more calls than a qube makes while it starts")

    async def _finish(self, opened: Opened) -> None:
        if not await _within(GRACE, opened.over):
            # Its end may still lie in some process that inherited it: take it away.
            await self._end(opened)
        self._forget(opened)

    async def _finish_joined(self, opened: Opened, other: Opened) -> None:
        waiting = [asyncio.create_task(one.over.wait()) for one in (opened, other)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        await self._end(opened)
        self._forget(opened)

    async def _end(self, opened: Opened) -> None:
        """End a connection from here, so that the agent sees it end."""
        with suppress(ReportableError):
            await self._machine.part(opened.index)
        if not await _within(GRACE, opened.over):
            log.warning("agent keeps a connection", extra={"qube": self._qube, "port": opened.port})

    async def _finish_unknown(self, opened: Opened) -> None:
        await opened.over.wait()
        with suppress(ReportableError):
            if opened.peer:
                # The other qube is to see the end of it, and is not ours to tell.
                await self._machine.part(opened.index)
            # The caller may still read what is on its way; nothing tells when it ends.
            while await self._machine.joined(opened.index):
                await asyncio.sleep(DRAIN_POLL)
        self._forget(opened)

    def _forget(self, opened: Opened) -> None:
        opened.over.set()
        key = (opened.peer, opened.port)
        if self._open.get(key) is opened:
            del self._open[key]
            self._pool.release(opened.index)
            if self.idle:
                self.on_idle()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _attach(opened: Opened, nonce: bytes) -> Attach:
    return Attach(opened.peer, opened.port, opened.index, nonce)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether something happens in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
