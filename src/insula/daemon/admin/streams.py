"""Methods whose answers go on until the connection ends (admin-api.md section 4.12)."""

import asyncio
from collections.abc import Awaitable, Callable

from insula.daemon.admin.calls import Call
from insula.daemon.admin.events import stream_events
from insula.daemon.admin.stats import stream_stats

STREAMS: dict[str, Callable[[Call, asyncio.StreamWriter], Awaitable[None]]] = {
    "admin.Events": stream_events,
    "admin.vm.Stats": stream_stats,
}
