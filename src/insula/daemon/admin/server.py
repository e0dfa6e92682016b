"""The Admin API's socket: one request a connection, answered at its end of file.

Whoever can open it acts as dom0: it lies in a directory of its owner's alone.
"""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

from insula.daemon.admin.calls import Api
from insula.daemon.admin.dispatch import answer, full_text, permit, resolve
from insula.daemon.admin.events import STREAM, stream_events
from insula.daemon.model.errors import RefusedSilentlyError
from insula.protocol import admin
from insula.protocol.admin import AdminRequest
from insula.protocol.errors import ProtocolError, ReportableError

SOCKET_NAME = "qubesd.sock"
REQUEST_TIMEOUT = 300.0  # seconds a caller has to send its request
_BACKLOG = 512

log = logging.getLogger(__name__)


class AdminServer:
    """Serves the Admin API. A caller that goes away does not interrupt what it asked for."""

    def __init__(self, run: Path, api: Api) -> None:
        self._path = run / SOCKET_NAME
        self._api = api
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; a socket that an earlier daemon left is replaced."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._accept, self._path, backlog=_BACKLOG
            )
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Stop listening and give up what is being served."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, ProtocolError) as error:
            log.info("request not served", extra={"why": repr(error)})
        finally:
            self._serving.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, payload = await _read(reader)
        if request.method == STREAM:
            await self._stream(request, payload, writer)
            return
        writer.write(await answer(self._api, request, payload))
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _stream(
        self, request: AdminRequest, payload: bytes, writer: asyncio.StreamWriter
    ) -> None:
        try:
            call = resolve(self._api, request, payload)
            permit(call)
        except ReportableError as error:
            writer.write(admin.exception(error.api_name, full_text(error)))
            return
        except RefusedSilentlyError as error:
            log.info("refused", extra={"method": STREAM, "why": str(error)})
            return
        await stream_events(call, writer)


async def _read(reader: asyncio.StreamReader) -> tuple[AdminRequest, bytes]:
    """A whole request.

    Raises:
        ProtocolError: it is too long, or not of the form. TimeoutError: it does not end.
    """
    received = bytearray()
    async with asyncio.timeout(REQUEST_TIMEOUT):
        while data := await reader.read(admin.MAX_REQUEST):
            received += data
            if len(received) > admin.MAX_REQUEST:
                raise ProtocolError(f"a request of more than {admin.MAX_REQUEST} bytes")
    return admin.split_request(bytes(received))
