"""The Admin API's sockets: one request a connection, answered at its end of file.

Whoever can open them acts as dom0: they lie in a directory of their owner's alone.
"""

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path

from insula.daemon.admin.calls import Api
from insula.daemon.admin.dispatch import SOCKETS, answer, resolve
from insula.daemon.admin.sockets import listen
from insula.daemon.admin.streams import STREAMS
from insula.daemon.model.errors import RefusedSilentlyError, full_text
from insula.protocol import admin
from insula.protocol.admin import AdminRequest
from insula.protocol.errors import ProtocolError, ReportableError

SOCKET_NAME = "qubesd.sock"
REQUEST_TIMEOUT = 300.0  # seconds a caller has to send its request
ANSWER_TIMEOUT = 60.0  # seconds a caller has to read its answer
_BACKLOG = 512

log = logging.getLogger(__name__)


class AdminServer:
    """Serves the Admin API. A caller that goes away does not interrupt what it asked for."""

    def __init__(self, run: Path, api: Api) -> None:
        self._run = run
        self._api = api
        self._servers: dict[str, asyncio.Server] = {}
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; sockets that an earlier daemon left are replaced.

        Raises:
            AddressInUseError: another daemon listens there.
        """
        for name in SOCKETS:
            listener = listen(self._run / name, socket.SOCK_STREAM, _BACKLOG)
            accept = partial(self._accept, name)
            self._servers[name] = await asyncio.start_unix_server(accept, sock=listener)

    async def close(self) -> None:
        """Stop listening and give up what is being served."""
        for name, server in self._servers.items():
            server.close()
            (self._run / name).unlink(missing_ok=True)
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(name, reader, writer)
            async with asyncio.timeout(ANSWER_TIMEOUT):
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, ProtocolError) as error:
            log.info("request not served", extra={"why": repr(error)})
        finally:
            self._serving.discard(task)
            _abort(writer)

    async def _serve(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        received = await _read(reader)
        if not received:
            return  # Somebody looked whether we are there.
        request, payload = admin.split_request(received)
        if name == SOCKET_NAME and request.method in STREAMS:
            await self._stream(request, payload, writer)
        else:
            writer.write(await answer(self._api, SOCKETS[name], request, payload))

    async def _stream(
        self, request: AdminRequest, payload: bytes, writer: asyncio.StreamWriter
    ) -> None:
        try:
            call = resolve(self._api, request, payload)
            if call.argument or payload:
                raise RefusedSilentlyError("neither an argument nor a payload is expected")
        except ReportableError as error:
            writer.write(admin.exception(error.api_name, full_text(error)))
        except RefusedSilentlyError as error:
            log.info("refused", extra={"method": request.method, "why": str(error)})
        else:
            await STREAMS[request.method](call, writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Let go of a connection that is still there, whatever it has yet to be sent."""
    # One whose last bytes went out while it was closing has lost its loop, and cannot be aborted.
    if writer.get_extra_info("socket").fileno() != -1:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """All that a caller sends.

    Raises:
        ProtocolError: it is too long. TimeoutError: it does not end.
    """
    received = bytearray()
    async with asyncio.timeout(REQUEST_TIMEOUT):
        while data := await reader.read(admin.MAX_REQUEST):
            received += data
            if len(received) > admin.MAX_REQUEST:
                raise ProtocolError(f"a request of more than {admin.MAX_REQUEST} bytes")
    return bytes(received)
