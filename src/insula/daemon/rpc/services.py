"""Services of a qube that the daemon itself calls, with little data each way."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass

from insula.daemon.rpc.calls import Calls, DataConnection
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.frames import frame, take_raw_frame
from insula.protocol.qrexec import (
    MAX_CHUNK,
    MAX_CHUNK_V2,
    MessageType,
    chunk_limit,
    hello,
    read_exit_code,
    session_version,
    take_data,
)
from insula.protocol.resync import MarkerFinder

TIMEOUT = 60.0  # seconds
MAX_OUTPUT = 65_536  # bytes; the rest is dropped
MOST_RECEIVED = 4_194_304  # bytes; what says more is not waited for
_CHUNK = 65_536


class ServiceError(ReportableError):
    """A service of a qube did not do what it was called for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a service ended. untrusted_output: what it wrote to its standard output."""

    code: int
    untrusted_output: bytes


async def call_service(
    calls: Calls,
    service: str,
    payload: bytes = b"",
    *,
    user: str = "root",
    timeout: float = TIMEOUT,
) -> Outcome:
    """Call a service as dom0 does, and wait for its end.

    Raises:
        ReportableError: it could not be called, broke off, or took more than timeout seconds.
    """
    text = f"{user}:nogui:QUBESRPC {service} dom0"
    connection = await calls.open(MessageType.EXEC_CMDLINE, text)
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(connection, payload)
    except TimeoutError:
        raise ServiceError(f"{service} did not end within {timeout:.0f} s") from None
    except (OSError, ProtocolError, EOFError) as error:
        raise ServiceError(f"{service} broke off: {error}") from None
    finally:
        calls.caller_over(connection)


async def _exchange(connection: DataConnection, payload: bytes) -> Outcome:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=connection.end))
    try:
        bodies = [payload[at : at + MAX_CHUNK_V2] for at in range(0, len(payload), MAX_CHUNK_V2)]
        frames = (frame(MessageType.DATA_STDIN, body) for body in (*bodies, b""))
        writer.write(b"".join((connection.nonce, hello(), *frames)))
        return await _outcome(reader, MarkerFinder(connection.nonce))
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _outcome(reader: asyncio.StreamReader, finder: MarkerFinder) -> Outcome:
    received, output, limit, heard = bytearray(), bytearray(), 0, 0
    while True:
        untrusted = await reader.read(_CHUNK)
        if not untrusted:
            raise EOFError("its connection ended")
        heard += len(untrusted)
        if heard > MOST_RECEIVED:
            raise ProtocolError(f"more than {MOST_RECEIVED} bytes came")
        received += finder.feed(untrusted)
        if not limit:
            raw = take_raw_frame(received, MAX_CHUNK)
            if raw is None:
                continue
            limit = chunk_limit(session_version(raw))
        while (message := take_data(received, limit)) is not None:
            kind, body = message
            if kind is MessageType.DATA_EXIT_CODE:
                return Outcome(read_exit_code(body), bytes(output))
            if kind is MessageType.DATA_STDOUT:
                output += body[: MAX_OUTPUT - len(output)]
