"""admin.vm.Stats: what running qubes use, round after round (admin-api.md section 4.12)."""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from insula.daemon.admin.calls import Call
from insula.daemon.admin.events import FIRST, MAX_UNREAD, until_closed
from insula.daemon.admin.usage import used, used_beside
from insula.daemon.model.errors import NotRunningError, full_text
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.properties.system_wide import GLOBAL
from insula.daemon.model.qube import DOM0_UUID, Qube, QubeClass
from insula.protocol import admin

_NANOSECONDS = 1_000_000_000
_MILLISECOND = 1_000_000  # nanoseconds
_SHORTEST_INTERVAL = 0.1  # seconds, whatever is set


@dataclass(frozen=True, slots=True)
class _Look:
    """Processor time of a machine in nanoseconds, and when it was looked at in seconds."""

    pid: int
    cpu_time: int
    at: float


async def stream_stats(call: Call, writer: asyncio.StreamWriter) -> None:
    """Tell of all that run, dom0 too, or of one, until the listener goes away or the one ends."""
    system = call.api.world.system
    alone = None if call.destination is system.dom0 else call.destination
    behind = asyncio.Event()
    closed = asyncio.create_task(until_closed(writer, behind))
    looks: dict[UUID, _Look] = {}
    writer.write(FIRST)
    try:
        while not closed.done():
            running = call.api.world.running
            if alone is not None and alone.uuid not in running:
                error = NotRunningError(alone.name)
                writer.write(admin.exception(error.api_name, full_text(error)))
                return
            if writer.transport.get_write_buffer_size() > MAX_UNREAD:
                return
            told = (*running, DOM0_UUID) if alone is None else (alone.uuid,)
            for qube in map(system.find, told):
                if qube is not None:
                    writer.write(_record(call, qube, looks))
            with suppress(TimeoutError):
                async with asyncio.timeout(_interval(call)):
                    await asyncio.shield(closed)
    finally:
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)


def _interval(call: Call) -> float:
    system = call.api.world.system
    default = GLOBAL["stats_interval"].default
    value = system.properties.get("stats_interval")
    if value is None and default is not None:
        value = default(system, system.dom0)
    return max(float(str(value)), _SHORTEST_INTERVAL)


def _processors(call: Call, qube: Qube) -> int:
    return int(str(value_of(call.api.world.system, qube, "vcpus")))


def _record(call: Call, qube: Qube, looks: dict[UUID, _Look]) -> bytes:
    running = call.api.world.running
    if qube.klass is QubeClass.ADMIN:
        pid, processors = 0, os.cpu_count() or 1
        memory, cpu_time = used_beside(one.machine.pid for one in running.values())
    else:
        pid, processors = running[qube.uuid].machine.pid, _processors(call, qube)
        memory, cpu_time = used(pid)
    now, before = _Look(pid, cpu_time, time.monotonic()), looks.get(qube.uuid)
    looks[qube.uuid] = now
    raw = 0
    if before is not None and before.pid == pid and now.at > before.at:
        raw = round((now.cpu_time - before.cpu_time) / _NANOSECONDS / (now.at - before.at) * 100)
    fields = {
        "memory_kb": str(memory),
        "cpu_time": str(cpu_time // _MILLISECOND),
        "cpu_usage": str(raw // processors),
        "cpu_usage_raw": str(raw),
    }
    return admin.event(qube.name, "vm-stats", fields)
