"""What happens in an instance, and what its qubes use, from an event loop.

Source of what a cache drops: admin-api.md section 1.6.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from insula.client import errors, instance
from insula.protocol import admin
from insula.protocol.admin import ADMIN_QUBE, Event, Refusal
from insula.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from insula.client.app import App
    from insula.client.qube import Qube

_CHUNK = 65_536
RECONNECT_AFTER = 1.0  # seconds
_STATES = {
    "domain-pre-start": "Transient",
    "domain-start": "Running",
    "domain-shutdown": "Halted",
    "domain-paused": "Paused",
    "domain-unpaused": "Running",
    "domain-start-failed": "Halted",
}
_ASSIGNED = ("device-assign", "device-unassign", "device-assignment-changed")
_ATTACHED = ("device-attach", "device-detach", "device-removed")


class Statistics(NamedTuple):
    """What one running qube uses. memory: KiB; cpu_time: ms since its start, of all its CPUs.

    cpu_usage: percent, over all its CPUs; cpu_usage_raw: percent of one CPU.
    """

    qube: str
    memory: int
    cpu_time: int
    cpu_usage: int
    cpu_usage_raw: int | None


async def events(
    destination: str = ADMIN_QUBE, *, reconnect: bool = False
) -> AsyncGenerator[Event, None]:
    """What happens from now on, in the whole system or to one qube; it never just ends.

    The first event is connection-established. reconnect: begin again when the daemon is gone, with
    that event, until it is back; what happened meanwhile is not told.

    Raises:
        DaemonNotRunningError: nobody listens.
        QubesDaemonCommunicationError: the stream is over, or is none.
        QubesException: the daemon refused.
    """
    while True:
        try:
            async with aclosing(_stream("admin.Events", destination)) as stream:
                async for event in stream:
                    yield event
        except errors.QubesDaemonCommunicationError:
            if not reconnect:
                raise
        await asyncio.sleep(RECONNECT_AFTER)


async def statistics(destination: str = ADMIN_QUBE) -> AsyncGenerator[Statistics, None]:
    """What running qubes use, round after round.

    Raises:
        QubesVMNotRunningError: the one qube that was asked for does not run.
        QubesException: as of events.
    """
    async with aclosing(_stream("admin.vm.Stats", destination)) as stream:
        async for event in stream:
            if event.name == "vm-stats":
                yield _statistics(event)


def _statistics(event: Event) -> Statistics:
    fields = event.fields
    raw = fields.get("cpu_usage_raw")
    try:
        return Statistics(
            event.subject,
            int(fields["memory_kb"]),
            int(fields["cpu_time"]),
            int(fields["cpu_usage"]),
            None if raw is None else int(raw),
        )
    except (KeyError, ValueError) as error:
        raise errors.QubesDaemonCommunicationError(f"not statistics: {error}") from None


def apply_to_cache(app: "App", event: Event) -> None:
    """Drop from an App's cache what is true no more after an event, and take over states."""
    kind, _, detail = event.name.partition(":")
    if kind == "connection-established":
        app.forget()
    elif kind in ("domain-add", "domain-delete"):
        app.domains.forget()
    elif not event.subject:
        if kind in ("property-set", "property-reset"):
            app.forget(detail)
    else:
        _apply_to_qube(app.domains.known(event.subject), kind, detail)


def _apply_to_qube(qube: "Qube", kind: str, detail: str) -> None:
    if kind in ("property-set", "property-reset"):
        qube.forget(detail)
    elif kind in _ASSIGNED:
        qube.devices.forget_assigned(detail)
    elif kind in _ATTACHED:
        if kind == "device-removed":  # told of the backend, and whoever had it has it no more
            for other in qube.app.domains.cached_qubes():
                other.devices.forget_attached(detail)
        qube.devices.forget_attached(detail)
    elif kind in _STATES:
        qube.tell_state(_STATES[kind])


async def _stream(method: str, destination: str) -> AsyncGenerator[Event, None]:
    received = bytearray()
    try:
        async with _opened(method, destination) as reader:
            while chunk := await reader.read(_CHUNK):
                received += chunk
                while (record := admin.take_event(received)) is not None:
                    if isinstance(record, Refusal):
                        raise errors.from_refusal(record)
                    yield record
    except (OSError, ProtocolError) as error:
        raise errors.QubesDaemonCommunicationError(f"{method}: {error}") from error
    raise errors.QubesDaemonCommunicationError(f"{method}: the stream is over")


@asynccontextmanager
async def _opened(method: str, destination: str) -> AsyncIterator[asyncio.StreamReader]:
    """What comes of a call that lasts, for the length of the block."""
    if instance.in_qube():
        from insula.client import remote  # noqa: PLC0415 - most programs run in dom0

        async with remote.stream(destination, method) as reader:
            yield reader
        return
    path = instance.socket_path(instance.ADMIN_SOCKET)
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        raise errors.DaemonNotRunningError(path) from None
    try:
        writer.write(admin.encode_request(method, "", destination))
        writer.write_eof()
        yield reader
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
