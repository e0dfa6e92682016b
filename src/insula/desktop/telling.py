"""Lines and questions of the session's own, shown by the program that asks about calls."""

import asyncio
import logging
from pathlib import Path

from insula.desktop.asking import SOCKET_NAME
from insula.protocol.policy_agent import ENDS, encode_suspicious, encode_tell

_TELL_TIMEOUT = 15.0  # seconds; the program may have to start
_ASK_TIMEOUT = 300.0
_MOST = 64  # bytes of an answer

log = logging.getLogger("insula.session")


async def tell(run: Path, text: str) -> None:
    """Show a line for a while."""
    await _exchange(run, encode_tell(text), _TELL_TIMEOUT)


async def ends(run: Path, qube: str) -> bool:
    """Whether the person wants a qube that is suspicious to end; without an answer it goes on."""
    return await _exchange(run, encode_suspicious(qube), _ASK_TIMEOUT) == ENDS


async def _exchange(run: Path, message: bytes, timeout: float) -> bytes:
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(run / SOCKET_NAME)
            try:
                writer.write(message)
                writer.write_eof()
                return await reader.read(_MOST)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        log.info("the person is not told: %r", error)
        return b""
