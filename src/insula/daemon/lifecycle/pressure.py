"""Letting go of snapshots' memory that no qube shares, when the host runs short of its own.

It is read again from disk when the next qube of its label starts, which then takes longer.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from insula.daemon.lifecycle.world import World
from insula.protocol.errors import ReportableError

LOOK_EVERY = 10.0  # seconds
SHORT = 0.1  # share of the host's memory; with less available it is short

log = logging.getLogger(__name__)


async def watch(
    world: World,
    *,
    available: Callable[[], float] | None = None,
    look_every: float = LOOK_EVERY,
) -> None:
    """Look how much memory the host has left, and make room; never returns."""
    measure = available or share_available
    while True:
        await asyncio.sleep(look_every)
        if measure() >= SHORT:
            continue
        with suppress(ReportableError):
            if dropped := await drop_unshared(world):
                log.info("memory is short: images let go of", extra={"count": dropped})


async def drop_unshared(world: World) -> int:
    """Let go of images of labels that no running qube has; how many they were.

    What a running qube maps would stay in memory all the same, but would not be shared any more.
    """
    labels = {world.system.qubes[uuid].label for uuid in tuple(world.running)}
    dropped = 0
    for golden in world.goldens.directories():
        dropped += await world.engine.drop_images(golden, kept=labels)
    return dropped


def share_available() -> float:
    """The share of the host's memory that can be had without swapping; 1 where nobody knows."""
    fields = {}
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = int(value.split()[0])
    total = fields.get("MemTotal", 0)
    return fields.get("MemAvailable", total) / total if total else 1.0
