"""After a start of the daemon: what runs, what was left and what the store says come to agree."""

import asyncio
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from insula.daemon.lifecycle.administration import Administration
from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.running import machine_name
from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.world import World
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.store.records import Run, drop_run
from insula.protocol.errors import ReportableError

log = logging.getLogger(__name__)


def expect(world: World, runs: list[Run]) -> list[Qube]:
    """Let qubes that an earlier daemon started be in between until they are taken over.

    Returns disposables that nobody will start any more.
    """
    for run in runs:
        world.xid = max(world.xid, run.xid)
        if (qube := world.system.find(run.uuid)) is not None:
            qube.power = PowerState.TRANSIENT
    return [qube for qube in world.system.qubes.values() if qube.fleeting and qube.halted]


async def take_all_over(world: World, power: Power, runs: list[Run]) -> None:
    """Take every qube over that still runs; clear up after those that do not."""
    await asyncio.gather(*(_take_over(world, power, run) for run in runs))


async def _take_over(world: World, power: Power, run: Run) -> None:
    try:
        qube = world.system.find(run.uuid)
        if qube is None:
            await world.store.write(drop_run(run.uuid))
        else:
            await power.take_over(qube, run)
    except Exception:
        # What it does is not known, so it is not halted; who kills it has it cleared up.
        log.exception("qube not taken over", extra={"qube": str(run.uuid)})


async def remove_all(administration: Administration, qubes: list[Qube]) -> None:
    """Remove qubes; one that cannot be is none of the others' matter."""
    for qube in qubes:
        try:
            await administration.remove(qube)
        except ReportableError as error:
            log.warning("a qube stays", extra={"qube": qube.name, "why": str(error)})


async def clear_leftovers(world: World, snapshots: Snapshots) -> None:
    """Remove what no qube has: machines, run directories, files, snapshots."""
    expected = {
        machine_name(uuid)
        for uuid, qube in world.system.qubes.items()
        if qube.power is not PowerState.HALTED
    }
    for name in await world.engine.machines():
        if name not in expected:
            log.warning("a machine that nothing knows of is ended", extra={"machine": name})
            await world.engine.release(name)
    await asyncio.to_thread(_clear_run_directories, world)
    volumes = [volume for qube in world.system.qubes.values() for volume in qube.volumes.values()]
    for left in await world.storage.sweep(volumes):
        log.info("a leftover was removed", extra={"file": left})
    with suppress(ReportableError):  # Without an agent volume nothing starts; that says so itself.
        await world.agent.ready()
        await snapshots.sweep()


def _clear_run_directories(world: World) -> None:
    for place in Path(world.run, "qubes").glob("*"):
        try:
            qube = world.system.find(UUID(place.name))
        except ValueError:
            qube = None
        if qube is None or qube.halted:
            shutil.rmtree(place, ignore_errors=True)
