"""How an instance is: what `insula status` shows."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.world import World
from insula.daemon.model.qube import Qube

_KIB = 1024


async def status(world: World, viewers: Mapping[UUID, int]) -> dict[str, Any]:
    """Values for JSON; memory in bytes. viewers: pids of those that run, by their qubes."""
    running = [
        (qube, administered)
        for qube in sorted(world.running.values(), key=lambda qube: qube.name)
        if (administered := world.system.find(qube.uuid)) is not None
    ]
    shown = [_shown(qube, administered) for qube, administered in running]
    pids = [(qube.machine.pid, viewers.get(qube.uuid)) for qube, _ in running]
    memory = await asyncio.to_thread(lambda: [_memory_of_all(ones) for ones in pids])
    return {
        "pid": os.getpid(),
        "engine": world.engine.title,
        "boundary": world.engine.capabilities.boundary,
        "warning": world.engine.capabilities.warning,
        "home": str(world.storage.home),
        "run": str(world.run),
        "snapshots": world.goldens.count(),
        "building": world.goldens.building(),
        "running": [{**one, **used} for one, used in zip(shown, memory, strict=True)],
    }


def _shown(qube: RunningQube, administered: Qube) -> dict[str, Any]:
    return {
        "name": qube.name,
        "class": str(administered.klass),
        "label": administered.label,
        "state": str(administered.power),
        "xid": qube.xid,
        "pid": qube.machine.pid,
        "started": qube.started,
    }


def _memory_of_all(pids: Iterable[int | None]) -> dict[str, int]:
    """What memory_of tells of several processes together."""
    total = {"private": 0, "shared": 0}
    for pid in pids:
        if pid is not None:
            for kind, amount in memory_of(pid).items():
                total[kind] += amount
    return total


def memory_of(pid: int) -> dict[str, int]:
    """Bytes of memory that are a process's own, and those it shares; zeros when it is gone."""
    fields = {}
    try:
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]:
            name, amount, _ = line.split()
            fields[name.rstrip(":")] = int(amount) * _KIB
        private = fields["Private_Dirty"] + fields.get("Swap", 0)
        return {"private": private, "shared": fields["Rss"] - fields["Private_Dirty"]}
    except (OSError, ValueError, KeyError):
        return {"private": 0, "shared": 0}
