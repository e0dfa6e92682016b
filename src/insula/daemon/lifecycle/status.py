"""How an instance is: what `insula status` shows."""

import asyncio
import os
from pathlib import Path
from typing import Any

from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.world import World
from insula.daemon.model.qube import Qube

_KIB = 1024


async def status(world: World) -> dict[str, Any]:
    """Values for JSON; memory in bytes."""
    running = [
        (qube, administered)
        for qube in sorted(world.running.values(), key=lambda qube: qube.name)
        if (administered := world.system.find(qube.uuid)) is not None
    ]
    shown = [_shown(qube, administered) for qube, administered in running]
    memory = await asyncio.to_thread(lambda: [memory_of(one["pid"]) for one in shown])
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
