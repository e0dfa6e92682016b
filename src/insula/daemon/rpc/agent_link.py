"""The daemon's end of a qube's control port: sessions, the agent's life, qrexec's control messages.

Nothing here waits on a guest without a deadline, and a guest's bytes pass `protocol` before
anything acts on them. A link that breaks the format is closed; the qube runs on.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from insula.daemon.rpc.pace import SLICE, Pace
from insula.protocol import control
from insula.protocol.control import AgentHello, Attach, ControlType, Key, Seeded, Status
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.frames import RawFrame, frame, take_raw_frame
from insula.protocol.links import Link, LinkStatus, unlink
from insula.protocol.qrexec import MessageType
from insula.protocol.resync import CONTROL_PREFIX, NONCE_SIZE, MarkerFinder

MOST_EARLY_KEYS = 256
MAX_QUEUED = 4 * 1024 * 1024  # bytes we hold for an agent that does not read
MOST_UNREAD = 262_144  # bytes of them after which it is not heard either
CLOSE_TIMEOUT = 1.0  # seconds an agent has to read what is left for it
_READ_SIZE = 65_536

T = TypeVar("T")

log = logging.getLogger(__name__)


class AgentError(ReportableError):
    """A qube's agent did not do what was asked of it."""


class AgentLink:
    """One session with a qube's agent."""

    def __init__(self, qube: str, path: Path) -> None:
        self._qube = qube
        self._path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._hello: asyncio.Future[AgentHello] = _future()
        self._seeded: asyncio.Future[Seeded] = _future()
        self._parked: asyncio.Future[Status] = _future()
        self._ready: asyncio.Future[Status] = _future()
        self._links: dict[tuple[ControlType, int], asyncio.Future[LinkStatus]] = {}
        self._closed = asyncio.Event()
        self.pace = Pace()
        self._early_keys: list[Key] = []
        self._on_key: Callable[[Key], None] | None = None
        self.on_qrexec: Callable[[MessageType, bytes], None] = lambda _type, _body: None
        self.on_lost: Callable[[], None] = lambda: None  # told when it ends, but not by close()

    async def connect(self, deadline: float, opening: bytes = b"") -> AgentHello:
        """Open a session and return what the agent says of itself.

        opening: whole frames for the agent that need not wait for its answer.

        Raises:
            AgentError: no agent answered within deadline seconds.
        """
        try:
            async with asyncio.timeout(deadline):
                await self._open(opening)
                return await asyncio.shield(self._hello)
        except TimeoutError:
            await self.close()
            raise AgentError(
                f"{self._qube}: its agent did not answer in {deadline:.0f} s"
            ) from None
        except AgentError:
            await self.close()
            raise

    async def _open(self, opening: bytes) -> None:
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(
                f"/proc/self/fd/{folder}/{self._path.name}"
            )
        except OSError as error:
            raise AgentError(f"{self._qube}: its control port is not there: {error}") from error
        finally:
            os.close(folder)
        nonce = secrets.token_bytes(NONCE_SIZE)
        self._writer.write(CONTROL_PREFIX + nonce + opening)
        self._task = asyncio.create_task(self._follow(MarkerFinder(CONTROL_PREFIX + nonce)))

    async def _follow(self, finder: MarkerFinder) -> None:
        assert self._reader is not None
        received = bytearray()
        try:
            while data := await self._reader.read(_READ_SIZE):
                received += finder.feed(data)
                while self._take_some(received):
                    await self._let_others()
                await self._let_others()
        except ProtocolError as error:
            log.warning("agent broke its protocol", extra={"qube": self._qube, "why": str(error)})
        except OSError as error:
            log.info("control port lost", extra={"qube": self._qube, "why": str(error)})
        except Exception:
            log.exception("agent not understood", extra={"qube": self._qube})
        if not self._closed.is_set():
            self._end()
            self.on_lost()

    def _take_some(self, received: bytearray) -> bool:
        """Act on messages, for no longer than others can wait; whether there may be more."""
        until = time.thread_time() + SLICE
        with self.pace.spending():
            while (raw := take_raw_frame(received, control.MAX_FROM_GUEST)) is not None:
                self._take(raw)
                if time.thread_time() >= until:
                    return True
        return False

    async def _let_others(self) -> None:
        """Read on when it is this qube's turn, and it has read most of what it was told."""
        assert self._writer is not None
        await self.pace.rest()
        if self._writer.transport.get_write_buffer_size() > MOST_UNREAD:
            await self._writer.drain()

    def _take(self, raw: RawFrame) -> None:
        match raw.type:
            case ControlType.AGENT_HELLO:
                _settle(self._hello, AgentHello.decode(raw.body))
            case ControlType.SEEDED:
                _settle(self._seeded, Seeded.decode(raw.body))
            case ControlType.PARKED:
                _settle(self._parked, Status.decode(raw.body))
            case ControlType.READY:
                _settle(self._ready, Status.decode(raw.body))
            case ControlType.LINKED | ControlType.UNLINKED:
                status = LinkStatus.decode(raw.body)
                waiting = self._links.get((ControlType(raw.type), status.number))
                if waiting is not None:
                    _settle(waiting, status)
            case ControlType.KEY | ControlType.KEY_GONE:
                self._take_key(Key.decode(ControlType(raw.type), raw.body))
            case _:
                try:
                    message_type = MessageType(raw.type)
                except ValueError:
                    raise ProtocolError(f"unknown message type {raw.type:#x}") from None
                self.on_qrexec(message_type, raw.body)

    def on_key(self, take: Callable[[Key], None]) -> None:
        """Say what takes the keys that the qube writes, and those that it wrote so far."""
        self._on_key = take
        early, self._early_keys = self._early_keys, []
        for key in early:
            take(key)

    def _take_key(self, untrusted: Key) -> None:
        if self._on_key is not None:
            self._on_key(untrusted)
        elif len(self._early_keys) < MOST_EARLY_KEYS:
            self._early_keys.append(untrusted)
        else:
            raise ProtocolError("more keys than a qube writes while it starts")

    def _end(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        if self._writer is not None:
            self._writer.close()
        starting = (self._hello, self._seeded, self._parked, self._ready)
        waits: list[asyncio.Future[Any]] = [*starting, *self._links.values()]
        for waiting in waits:
            if not waiting.done():
                waiting.set_exception(AgentError(f"{self._qube}: its control port was closed"))
                waiting.exception()  # Retrieved: nobody may be waiting.

    @property
    def reached(self) -> bool:
        """Whether a session was ever opened; that of a paused qube waits for it to go on."""
        return self._writer is not None

    @property
    def open(self) -> bool:
        """Whether the session is open."""
        return self._writer is not None and not self._closed.is_set()

    def send(self, encoded: bytes) -> None:
        """Queue whole frames for the agent.

        Raises:
            AgentError: the link is closed, or the agent has not read for too long.
        """
        if self._writer is None or self._closed.is_set():
            raise AgentError(f"{self._qube}: its control port is closed")
        if self._writer.transport.get_write_buffer_size() > MAX_QUEUED:
            raise AgentError(f"{self._qube}: its agent does not read")
        self._writer.write(encoded)

    async def identify(self, identity: control.Identity, deadline: float) -> None:
        """Seed, set the clock and tell the qube who it is; returns when it is ready.

        Raises:
            AgentError: the agent failed, with its reason, or did not finish in time.
        """
        self.send(introduction(identity))
        await self.become_ready(deadline)

    async def become_ready(self, deadline: float) -> None:
        """Wait for a qube that was told who it is.

        Raises:
            AgentError: as for identify.
        """
        seeded = await self._within(self._seeded, deadline, "take its seed")
        if seeded.others:
            raise AgentError(f"{self._qube}: {seeded.others} processes could run before its seed")
        status = await self._within(self._ready, deadline, "become ready")
        if status.code:
            raise AgentError(f"{self._qube} could not start: {status.text!r}")

    async def park(self, deadline: float) -> None:
        """Have the agent freeze everything but itself."""
        self.send(control.park())
        status = await self._within(self._parked, deadline, "park")
        if status.code:
            raise AgentError(f"{self._qube} could not park: {status.text!r}")

    def set_clock(self) -> None:
        """Tell the agent the time, as after every pause."""
        self.send(control.Clock(time.time_ns()).encode())

    def shutdown(self) -> None:
        """Ask the agent to end the qube."""
        self.send(control.shutdown())

    def attach(self, attach: Attach, message_type: MessageType, body: bytes) -> None:
        """Say where a data connection lies and, in the same write, what it is for."""
        self.send(attach.encode() + frame(message_type, body))

    async def link(self, link: Link, deadline: float) -> None:
        """Tell of a network card; returns when packets may pass it.

        Raises:
            AgentError: it could not be set up, with the reason, or not in time.
        """
        await self._answered(ControlType.LINKED, link.number, link.encode(), deadline)

    async def unlink(self, number: int, deadline: float) -> None:
        """Have a network card taken down; returns when it is.

        Raises:
            AgentError: it could not be, or not in time.
        """
        await self._answered(ControlType.UNLINKED, number, unlink(number), deadline)

    async def _answered(
        self, answer: ControlType, number: int, message: bytes, deadline: float
    ) -> None:
        key = (answer, number)
        waiting: asyncio.Future[LinkStatus] = _future()
        self._links[key] = waiting
        try:
            self.send(message)
            status = await self._within(waiting, deadline, f"set up network card {number}")
        finally:
            if self._links.get(key) is waiting:
                del self._links[key]
        if status.code:
            raise AgentError(f"{self._qube}: network card {number}: {status.text!r}")

    async def _within(self, waiting: "asyncio.Future[T]", deadline: float, what: str) -> T:
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.shield(waiting)
        except TimeoutError:
            raise AgentError(f"{self._qube} did not {what} in {deadline:.0f} s") from None

    async def close(self) -> None:
        """Let go of the agent; it goes on."""
        self._end()
        if self._writer is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._writer.wait_closed()
            except TimeoutError:
                self._writer.transport.abort()
            except OSError as error:
                log.debug("control port lost", extra={"qube": self._qube, "why": str(error)})
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


def introduction(identity: control.Identity) -> bytes:
    """Fresh randomness, the time and who it is, for an agent."""
    seed = control.Seed(time.time_ns(), os.urandom(control.SEED_SIZE))
    return seed.encode() + identity.encode()


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


def _settle(waiting: "asyncio.Future[T]", value: T) -> None:
    """Give a waiting caller its answer; an answer that nobody waits for changes nothing."""
    if not waiting.done():
        waiting.set_result(value)
