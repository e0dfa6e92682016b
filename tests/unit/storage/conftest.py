"""Storage in a directory of its own, and volumes of the kinds that qubes have."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest_asyncio

from insula.daemon.model.machine import Disk
from insula.daemon.model.volume import Volume
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.volumes import Storage, close

from .qemu import disk_io

SIZE = 64 << 20  # bytes


@pytest_asyncio.fixture
async def storage(tmp_path: Path) -> Storage:
    made = Storage(tmp_path / "home")
    await made.prepare()
    return made


def saved(name: str = "private", owner: UUID | None = None, size: int = SIZE) -> Volume:
    return Volume(owner=owner or uuid4(), name=name, size=size, save_on_stop=True)


def snapshot(name: str = "root", size: int = SIZE) -> Volume:
    return Volume(owner=uuid4(), name=name, size=size, snap_on_start=True)


def volatile(size: int = SIZE) -> Volume:
    return Volume(owner=uuid4(), name="volatile", size=size)


@asynccontextmanager
async def attached(storage: Storage, plan: Plan) -> AsyncIterator[Disk]:
    """One disk for the length of the block."""
    disks = await storage.attach([plan])
    try:
        yield disks[0]
    finally:
        close(disks)


async def written(storage: Storage, volume: Volume, *commands: str) -> Volume:
    """The volume after a start that did these qemu-io commands, and its commit."""
    async with attached(storage, Plan(volume=volume)) as disk:
        disk_io(disk, *commands, "flush")
    return await storage.commit(volume)
