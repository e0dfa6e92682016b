"""The socket of local programs: records with descriptors (protocol/local.py).

Whoever can open it acts as dom0: it lies in a directory of its owner's alone.
"""

import array
import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from insula.daemon.admin.sockets import hung_up, listen
from insula.protocol import local
from insula.protocol.errors import ProtocolError, ReportableError

REQUEST_TIMEOUT = 10.0  # seconds a caller has to send its request
_BACKLOG = 128
_MAX_DESCRIPTORS = 4
_DESCRIPTOR_SPACE = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Request:
    """One caller's request. on_done: what to do once the caller has closed its connection."""

    fields: dict[str, Any]
    descriptors: list[int]
    on_done: AsyncExitStack = field(default_factory=AsyncExitStack)


@dataclass(slots=True)
class Answer:
    """What a caller gets; descriptors are closed here after they were sent."""

    fields: dict[str, Any]
    descriptors: Sequence[int] = ()


Handler = Callable[[Request], Awaitable[Answer]]


class LocalServer:
    """Serves one request a connection and looks after the connection until its caller is done."""

    def __init__(
        self, path: Path, handlers: dict[str, Handler], for_caller: frozenset[str] = frozenset()
    ) -> None:
        """for_caller: operations that are of no use to anybody once their caller is gone."""
        self._path = path
        self._handlers = handlers
        self._for_caller = for_caller
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen; a socket that an earlier daemon left is replaced.

        Raises:
            AddressInUseError: another daemon listens there.
        """
        self._listener = listen(self._path, socket.SOCK_SEQPACKET, _BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            descriptors: list[int] = []
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    record, descriptors = await _receive(connection)
                request = Request(local.decode(record), descriptors)
            except (TimeoutError, OSError, ProtocolError) as error:
                log.info("local request not read", extra={"why": repr(error)})
                _close_all(descriptors)
                return
            try:
                async with request.on_done:
                    try:
                        await self._answer(connection, request)
                    except asyncio.CancelledError:
                        request.on_done.pop_all()  # The daemon ends; what it was asked for goes on.
                        raise
            except Exception:
                log.exception("after a local request")
            finally:
                _close_all(descriptors)

    async def _answer(self, connection: socket.socket, request: Request) -> None:
        if str(request.fields.get("op")) in self._for_caller:
            answer = await _unless_gone(connection, self._handle(request))
        else:
            answer = await self._handle(request)
        if answer is None:
            return
        try:
            connection.sendmsg(
                [local.encode(answer.fields)],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", answer.descriptors))]
                if answer.descriptors
                else [],
            )
        except OSError as error:
            log.info("local caller is gone", extra={"why": repr(error)})
            return
        finally:
            _close_all(answer.descriptors)
        await _closed(connection)

    async def _handle(self, request: Request) -> Answer:
        handler = self._handlers.get(str(request.fields.get("op")))
        if handler is None:
            return _refusal("QubesException", f"no such operation: {request.fields.get('op')!r}")
        try:
            return await handler(request)
        except ReportableError as error:
            text = f"{error}\n{error.hint}" if error.hint else str(error)
            return _refusal(error.api_name, text)
        except ProtocolError as error:
            return _refusal("QubesValueError", str(error))
        except Exception:
            log.exception("local request failed", extra={"op": request.fields.get("op")})
            return _refusal("QubesException", "an error of ours; the daemon's log has it")

    async def close(self) -> None:
        """Stop listening and let go of callers."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _unless_gone(
    connection: socket.socket, handling: Coroutine[Any, Any, Answer]
) -> Answer | None:
    """What handling comes to; None, and it is given up, when the caller goes away before."""
    work = asyncio.create_task(handling)
    gone = asyncio.create_task(hung_up(connection.fileno()))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
    if work.cancelled():
        log.info("local caller is gone before its answer")
        return None
    return work.result()


def _refusal(name: str, message: str) -> Answer:
    return Answer({"error": name, "message": message})


async def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    await _readable(connection)
    data, ancillary, flags, _ = connection.recvmsg(
        local.MAX_RECORD + 1, _DESCRIPTOR_SPACE, socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    given = list(descriptors)
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or not data:
        _close_all(given)
        raise ProtocolError("no whole record")
    return data, given


async def _closed(connection: socket.socket) -> None:
    """Wait until the caller closes; what it may still send is dropped."""
    while True:
        await _readable(connection)
        try:
            if not connection.recv(local.MAX_RECORD):
                return
        except BlockingIOError:
            continue
        except OSError:
            return


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
