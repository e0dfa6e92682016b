"""Golden snapshots: a template's root booted once, parked, and kept as memory, state and layer.

A snapshot's directory is complete or absent: it is made under another name and renamed. Its key is
a digest of all that its clones must share with it. Two of one key, the later made anew, differ in
the end of their directories' names: what belongs to one is never taken for the other's.
"""

import asyncio
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from insula.daemon.engine.interface import (
    Engine,
    EngineError,
    Kernel,
    Machine,
    MachineSpec,
    Shape,
)
from insula.daemon.model.machine import Disk, Layer
from insula.daemon.model.volume import Volume
from insula.daemon.rpc.agent_link import AgentLink
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.volumes import Storage, close

_END_TIMEOUT = 10.0  # seconds
BOOT_TIMEOUT = 300.0  # seconds until the agent of a booting machine answers
PARK_TIMEOUT = 120.0
CHOSEN_FOR = 120.0  # seconds for which a start may still want a snapshot that was made anew
_ROOT, _PRIVATE = "root.qcow2", "private.qcow2"

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Golden:
    """A snapshot on disk.

    layer lies over the layers of the root it was booted from. private is what its boot made of a
    blank private volume: the lowest layer of one that was never used, which then need not be made.
    sizes: bytes of its disks, by their serials.
    """

    key: str
    directory: Path
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def layer(self) -> Layer:
        return Layer(path=self.directory / _ROOT, format="qcow2")

    @property
    def private(self) -> Layer:
        return Layer(path=self.directory / _PRIVATE, format="qcow2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a snapshot is made from; root: a template's volume in its current state."""

    root: Volume
    private_size: int
    volatile_size: int
    kernel: Kernel
    shape: Shape
    agent: Disk
    agent_digest: str

    def sizes(self) -> dict[str, int]:
        """Bytes of the disks that a machine writes, by their serials."""
        return {
            "root": self.root.size,
            "private": self.private_size,
            "volatile": self.volatile_size,
        }

    def key(self, engine: Engine) -> str:
        """The digest of everything that a clone and its snapshot have to have in common."""
        parts = [
            engine.snapshot_key(),
            self.shape.key(),
            self.root.state,
            *(f"{serial}:{size}" for serial, size in self.sizes().items()),
            *(str(path.resolve()) for path in (self.kernel.image, self.kernel.initrd)),
            self.kernel.options,
            self.agent_digest,
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Goldens:
    """The snapshots of an instance."""

    def __init__(
        self, directory: Path, run: Path, engine: Engine, storage: Storage, uid: int
    ) -> None:
        self._directory = directory
        self._run = run
        self._engine = engine
        self._storage = storage
        self._uid = uid
        self._building: dict[str, asyncio.Task[Golden]] = {}

    def find(self, basis: Basis) -> Golden | None:
        """The newest finished snapshot of a basis, if there is one."""
        key = basis.key(self._engine)
        made = max(self._directory.glob(f"{key}-*/meta.json"), key=_made_at, default=None)
        return None if made is None else Golden(key, made.parent, basis.sizes())

    async def ensure(self, basis: Basis) -> Golden:
        """The snapshot of a basis, made now if there is none; callers of one basis share the work.

        Raises:
            EngineError, AgentError: the machine did not boot, park or save.
        """
        return self.find(basis) or await self.make(basis)

    async def make(self, basis: Basis) -> Golden:
        """A snapshot made now; one that is being made will do."""
        key = basis.key(self._engine)
        task = self._building.get(key)
        if task is None:
            task = asyncio.create_task(self._build(key, basis))
            self._building[key] = task
            task.add_done_callback(lambda _done: self._building.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End what is being made; nothing is left of it, unless that takes too long."""
        building = tuple(self._building.values())
        for task in building:
            task.cancel()
        if building:
            await asyncio.wait(building, timeout=_END_TIMEOUT)

    def age(self, golden: Golden) -> float:
        """Seconds since a snapshot was made."""
        return time.time() - _made_at(golden.directory / "meta.json")

    def building(self) -> int:
        """How many snapshots are being made."""
        return len(self._building)

    def directories(self) -> tuple[Path, ...]:
        """Where finished snapshots lie."""
        return tuple(meta.parent for meta in self._directory.glob("*/meta.json"))

    def count(self) -> int:
        """How many snapshots there are."""
        return len(self.directories())

    async def _build(self, key: str, basis: Basis) -> Golden:
        started = time.monotonic()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = self._scratch(key)
        await asyncio.to_thread(shutil.rmtree, scratch, True)
        scratch.mkdir(mode=0o700)
        name = f"golden-{key[:12]}"
        run = self._run / name
        try:
            await self._boot_and_save(name, run, scratch, basis)
            meta = {"made": time.time(), "seconds": round(time.monotonic() - started, 1)}
            (scratch / "meta.json").write_text(json.dumps(meta))
            place = self._directory / f"{key}-{time.time_ns()}"
            await asyncio.to_thread(_settle, scratch, place)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, True)
            await asyncio.to_thread(shutil.rmtree, run, True)
        log.info("golden snapshot made", extra={"key": key, "seconds": time.monotonic() - started})
        return Golden(key, place, basis.sizes())

    async def _boot_and_save(self, name: str, run: Path, scratch: Path, basis: Basis) -> None:
        machine = await self._launch(name, run, scratch, basis)
        try:
            link = AgentLink(name, run / "control.sock")
            try:
                await unless_gone(machine, link.connect(BOOT_TIMEOUT))
                await link.park(PARK_TIMEOUT)
            finally:
                await link.close()
            await machine.save(scratch)
        except BaseException:
            await machine.kill()
            raise
        finally:
            await self._engine.release(name)

    async def _launch(self, name: str, run: Path, scratch: Path, basis: Basis) -> Machine:
        root = replace(
            basis.root, snap_on_start=True, save_on_stop=False, layers=(), revisions=(), number=0
        )
        private = Volume(owner=root.owner, name="private", size=basis.private_size)
        disks = await self._storage.attach(
            (
                Plan(volume=root, source=basis.root, top=scratch / _ROOT),
                Plan(volume=private, top=scratch / _PRIVATE),
            )
        )
        try:
            disks += (
                Disk("volatile", (), False, basis.volatile_size),
                await self._storage.open(basis.agent),
            )
            return await self._engine.launch(
                MachineSpec(
                    name=name,
                    uid=self._uid,
                    run=run,
                    disks=disks,
                    kernel=basis.kernel,
                    shape=basis.shape,
                    for_snapshot=True,
                )
            )
        finally:
            close(disks)

    async def sweep(self, keep: set[str]) -> None:
        """Remove snapshots whose key is not to be kept, and what a former daemon left unfinished.

        Of each key the newest stays, and one before it for a while: a start may have chosen it.
        What lives on is untouched: its layers are open, its memory is mapped.
        """
        if not self._directory.is_dir():
            return
        kept = {self._scratch(key).name for key in self._building}
        for key in keep:
            finished = sorted(self._directory.glob(f"{key}-*/meta.json"), key=_made_at)
            kept |= {one.parent.name for one in finished[-1:]}
            if finished and time.time() - _made_at(finished[-1]) < CHOSEN_FOR:
                kept |= {one.parent.name for one in finished[-2:]}
        for entry in tuple(self._directory.iterdir()):
            if entry.name not in kept:
                await self._engine.drop_images(entry)
                await asyncio.to_thread(shutil.rmtree, entry, True)

    def _scratch(self, key: str) -> Path:
        """Where a snapshot is made."""
        return self._directory / f".{key}.new"


async def unless_gone(machine: Machine, work: Coroutine[Any, Any, T]) -> T:
    """The result of work that needs a machine.

    Raises:
        EngineError: the machine ended first.
    """
    gone = asyncio.Event()
    machine.on_gone(gone.set)
    working = asyncio.create_task(work)
    ending = asyncio.create_task(gone.wait())
    try:
        await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise EngineError(f"{machine.name}: the machine ended before its agent answered")
        return await working
    finally:
        for task in (working, ending):
            task.cancel()
        await asyncio.gather(working, ending, return_exceptions=True)


def _made_at(meta: Path) -> float:
    """When a snapshot was made, seconds since the epoch, as its directory's name says."""
    return int(meta.parent.name.rpartition("-")[2]) / 1e9


def _settle(scratch: Path, place: Path) -> None:
    """Make a finished snapshot durable under its name."""
    # Clones are handed its state while they run as its owner, where there is but one user: then
    # its mode is what keeps them from opening it again to write.
    for file in scratch.iterdir():
        file.chmod(0o400)
    for file in (*scratch.iterdir(), scratch):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    scratch.rename(place)
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
