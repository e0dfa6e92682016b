"""What follows when a qube's machine is gone: its data kept, the rest removed, events told.

Whatever fails on the way, the qube is halted at the end, and what it wrote is not lost: what could
not be made its volumes' state now is there at its next start.
"""

import asyncio
import logging
import shutil
from collections.abc import Awaitable

from insula.daemon.lifecycle.running import machine_name, run_directory
from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.world import World
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.model.volume import Volume
from insula.daemon.store.records import drop_run
from insula.protocol.errors import ReportableError

_FOLLOW_STATE = ("xid", "stubdom_xid", "start_time")

log = logging.getLogger(__name__)


class Endings:
    """Clears up after machines."""

    def __init__(self, world: World, snapshots: Snapshots) -> None:
        self._world = world
        self._snapshots = snapshots

    async def clear_up(self, qube: Qube, *, spawned: bool = True) -> None:
        """Let a qube be halted; its caller holds its lock. spawned: whether it got a machine."""
        world = self._world
        await self._try(qube, world.engine.release(machine_name(qube.uuid)))
        place = run_directory(world.run, qube.uuid)
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        if qube.properties.get("auto_cleanup"):
            await self._vanish(qube, spawned=spawned)
        else:
            await self._keep(qube, spawned=spawned)

    async def clear_up_unused(self, qube: Qube) -> None:
        """Let a disposable vanish that will not be started after all; its caller has its lock."""
        if qube.properties.get("auto_cleanup") and qube.uuid in self._world.system.qubes:
            await self._vanish(qube, spawned=False)

    async def _keep(self, qube: Qube, *, spawned: bool) -> None:
        advanced = await self._try(qube, self._commit(qube))
        if advanced:
            for volume in qube.volumes.values():
                await self._try(qube, self._world.storage.prune(volume))
        self._halted(qube, spawned=spawned)
        if advanced and qube.klass.has_own_root:
            self._snapshots.refresh(qube)

    async def _commit(self, qube: Qube) -> bool:
        """What it wrote becomes its volumes' state; whether it wrote anything."""
        world = self._world
        committed: dict[str, Volume] = {
            name: await world.storage.commit(volume) for name, volume in qube.volumes.items()
        }
        if committed == qube.volumes:
            await world.store.write(drop_run(qube.uuid))
            return False
        async with world.editing(drop_run(qube.uuid)) as edit:
            edit.touch(qube).volumes = committed
        return True

    async def _vanish(self, qube: Qube, *, spawned: bool) -> None:
        """A disposable ends: so does its entry."""
        self._halted(qube, spawned=spawned)
        if await self._try(qube, self._forget(qube)):
            await self._try(qube, self._world.storage.remove(qube.uuid))
            self._world.events.tell(qube, "domain-remove-from-disk")

    async def _forget(self, qube: Qube) -> bool:
        async with self._world.editing(drop_run(qube.uuid)) as edit:
            edit.tell(None, "domain-pre-delete", vm=qube.name)
            edit.remove(qube)
            edit.tell(None, "domain-delete", vm=qube.name)
        return True

    def _halted(self, qube: Qube, *, spawned: bool) -> None:
        if spawned:
            self._world.events.tell(qube, "domain-stopped")
        qube.xid, qube.started = -1, None
        self._world.untrusted_written.pop(qube.uuid, None)
        qube.power = PowerState.HALTED
        if spawned:
            tell_state_resets(self._world, qube)
            self._world.events.tell(qube, "domain-shutdown")

    async def _try(self, qube: Qube, step: Awaitable[object]) -> bool:
        """Whether a step was done and said yes; one that fails does not keep others from theirs."""
        try:
            return bool(await step)
        except (OSError, ReportableError) as error:
            log.error("a step of a qube's end failed", extra={"qube": qube.name, "why": str(error)})
        except Exception:
            log.exception("a step of a qube's end failed", extra={"qube": qube.name})
        return False


def tell_state_resets(world: World, qube: Qube) -> None:
    """Tell that properties which follow from whether a qube runs are others now."""
    for name in _FOLLOW_STATE:
        world.events.tell(qube, f"property-reset:{name}", name=name)
