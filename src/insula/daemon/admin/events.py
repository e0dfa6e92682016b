"""admin.Events: what happens, for as long as somebody listens (admin-api.md section 4.12)."""

import asyncio
import logging

from insula.daemon.admin import permissions
from insula.daemon.admin.calls import Call
from insula.daemon.admin.sockets import hung_up
from insula.protocol import admin
from insula.protocol.admin import Event

MAX_UNREAD = 4 * 1024 * 1024  # bytes a listener may be behind, after which it is let go of
FIRST = admin.event("", "connection-established")

log = logging.getLogger(__name__)


async def stream_events(call: Call, writer: asyncio.StreamWriter) -> None:
    """Pass events on until the listener goes away, or does not read for too long."""
    system = call.api.world.system
    subject = None if call.destination is system.dom0 else call.destination.name
    behind = asyncio.Event()

    def pass_on(event: Event) -> None:
        if subject not in (None, event.subject) or behind.is_set():
            return
        if not permissions.is_told(
            call.api.allows, system, call.source, event, call.api.world.departed
        ):
            return
        if writer.transport.get_write_buffer_size() > MAX_UNREAD:
            behind.set()
            return
        writer.write(_record(event))

    writer.write(FIRST)
    call.api.world.events.add(pass_on)
    try:
        await until_closed(writer, behind)
    finally:
        call.api.world.events.remove(pass_on)
    if behind.is_set():
        log.warning("a listener did not read its events and was let go of")
    writer.transport.abort()


async def until_closed(writer: asyncio.StreamWriter, behind: asyncio.Event) -> None:
    """Wait until a listener goes away, or is too far behind."""
    connection = writer.get_extra_info("socket").fileno()
    waiting = [
        asyncio.ensure_future(one)
        for one in (writer.wait_closed(), hung_up(connection), behind.wait())
    ]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _record(event: Event) -> bytes:
    fields = {key: _ascii(value) for key, value in event.fields.items()}
    return admin.event(event.subject, event.name, fields)


def _ascii(text: str) -> str:
    """Text as a record carries it, in which there is no room for more than ASCII."""
    return text.encode("ascii", "replace").decode("ascii").replace("\0", "?")
