"""The stream of what happens in an instance, from an event loop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from insula.client import errors, instance
from insula.protocol import admin
from insula.protocol.admin import ADMIN_QUBE, Event, Refusal
from insula.protocol.errors import ProtocolError

_CHUNK = 65_536


async def events() -> AsyncGenerator[Event, None]:
    """What happens from now on; the first event is connection-established. It never just ends.

    Raises:
        DaemonNotRunningError: nobody listens.
        QubesDaemonCommunicationError: the stream is over, or is none.
        QubesException: the daemon refused.
    """
    path = instance.socket_path(instance.ADMIN_SOCKET)
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        raise errors.DaemonNotRunningError(path) from None
    received = bytearray()
    try:
        writer.write(admin.encode_request("admin.Events", "", ADMIN_QUBE))
        writer.write_eof()
        while chunk := await reader.read(_CHUNK):
            received += chunk
            while (record := admin.take_event(received)) is not None:
                if isinstance(record, Refusal):
                    raise errors.from_refusal(record)
                yield record
    except (OSError, ProtocolError) as error:
        raise errors.QubesDaemonCommunicationError(f"events: {error}") from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    raise errors.QubesDaemonCommunicationError("the stream of events is over")
