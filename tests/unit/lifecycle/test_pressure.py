"""Memory of snapshots is let go of where it is short, and only what no running qube shares."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from insula.daemon.engine.memory.engine import MemoryEngine
from insula.daemon.lifecycle.pressure import SHORT, drop_unshared, share_available, watch
from insula.daemon.model.qube import Qube
from tests.serving import Instance, serving

from .conftest import until


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    """An instance whose qubes start from snapshots."""
    async with serving(tmp_path / "home", clone=True) as made:
        await made.snapshots.ensure(await made.template())
        yield made


def _shared(instance: Instance) -> set[str]:
    engine = instance.world.engine
    assert isinstance(engine, MemoryEngine)
    return {label for _golden, label in engine.images}


async def _look_until(
    instance: Instance, available: Callable[[], float], over: Callable[[], bool]
) -> None:
    watching = asyncio.create_task(watch(instance.world, available=available, look_every=0))
    await until(over)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_what_a_running_qube_shares_stays(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    assert _shared(instance) == {work.label}
    assert await drop_unshared(instance.world) == 0
    await instance.power.kill(work)
    assert await drop_unshared(instance.world) == 1
    assert _shared(instance) == set()


async def test_nothing_is_let_go_of_while_there_is_memory(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    await instance.power.kill(work)
    looks = 0

    def plenty() -> float:
        nonlocal looks
        looks += 1
        return SHORT

    await _look_until(instance, plenty, lambda: looks > 3)
    assert _shared(instance) == {work.label}


async def test_a_short_memory_is_made_room_in(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    await instance.power.kill(work)
    await _look_until(instance, lambda: SHORT / 2, lambda: not _shared(instance))


def test_the_host_tells_how_much_it_has() -> None:
    assert 0 < share_available() <= 1
