"""Volumes on disk. Which files make up a volume is its caller's to remember: `Volume`.

A change goes in three steps: a method here makes files and returns the new Volume, the caller
saves that in one transaction, `prune` removes what it no longer names. A crash between two steps
leaves files that nothing names, which `sweep` removes at the next start.

Everything here blocks in a worker thread, never on the event loop.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from insula.daemon.model.machine import Disk, LayerFormat
from insula.daemon.model.pools import POOL, Pool
from insula.daemon.model.volume import Volume
from insula.daemon.storage import attaching, merging, pools, upkeep
from insula.daemon.storage.errors import DriverRefusedError
from insula.daemon.storage.places import Places
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.pools import Room
from insula.daemon.storage.upkeep import How

close = attaching.close


class Storage:
    """The volumes of one instance, below its home directory."""

    def __init__(self, home: Path) -> None:
        self._places = Places(home)

    @property
    def home(self) -> Path:
        """The instance's persistent state."""
        return self._places.home

    async def prepare(self) -> None:
        """Make the directories that everything else relies on."""
        await asyncio.to_thread(upkeep.prepare, self._places)

    def use(self, pool: Pool) -> None:
        """Let volumes be in a pool that was set up."""
        if not pool.built_in and not pool.holds_kernels:
            self._places.pools[pool.name] = pool

    async def set_up(self, pool: Pool) -> None:
        """Make a directory a pool.

        Raises:
            DriverRefusedError: it cannot be one.
        """
        await asyncio.to_thread(pools.set_up, self._places, pool)
        self.use(pool)

    async def leave(self, pool: Pool) -> None:
        """Let a pool be none; what else lies in its directory stays."""
        if self._places.pools.get(pool.name) is pool:
            del self._places.pools[pool.name]
        await asyncio.to_thread(pools.leave, pool)

    def directory(self, pool: Pool) -> Path:
        """Where a pool lies, whether it is there or not."""
        if pool.directory is not None:
            return Path(pool.directory)
        return self._places.home if pool.name == POOL else self._places.kernels

    async def room(self, pool: Pool) -> Room:
        """Size and use of the file system a pool lies on.

        Raises:
            StorageError: it is not there.
        """
        if not pool.holds_kernels:
            self._places.root(pool.name)
        return await asyncio.to_thread(pools.room, self.directory(pool))

    async def create(self, *volumes: Volume) -> None:
        """Make room for the volumes of a new qube; only what is saved needs any."""
        await asyncio.to_thread(upkeep.create, self._places, volumes)

    async def attach(self, plans: Sequence[Plan]) -> tuple[Disk, ...]:
        """Open what a machine needs, all anew; a clone or a second try needs another call.

        The disks' descriptors are the caller's, to close with `close` once the machine has them.

        Raises:
            NoSpaceError: there is no room for the layers that the machine writes.
            StorageError: a layer is missing or damaged.
        """
        return await _opening(lambda: attaching.attach(self._places, tuple(plans)))

    async def open(self, disk: Disk) -> Disk:
        """A disk made elsewhere with its layers opened; each must be a path alone."""
        return (await _opening(lambda: (attaching.open_disk(disk),)))[0]

    async def commit(self, volume: Volume) -> Volume:
        """What a machine that is gone wrote becomes the volume's state, however it ended.

        A volume that was not started is returned as it is.
        """
        return await asyncio.to_thread(upkeep.commit, self._places, volume)

    async def prune(self, volume: Volume) -> tuple[str, ...]:
        """Remove files that the volume, as it was last saved, does not name; returns which."""
        return await asyncio.to_thread(upkeep.prune, self._places, volume)

    async def revert(self, volume: Volume, revision: int) -> Volume:
        """Go back to a former state; the present one becomes a revision.

        Raises:
            NoSuchRevisionError: there is none of that number.
            VolumeInUseError: the volume was written since the last commit.
        """
        return await asyncio.to_thread(upkeep.revert, self._places, volume, revision)

    async def resize(self, volume: Volume, size: int) -> Volume:
        """Give a volume more room, in bytes; a running machine must be told as well.

        Raises:
            StorageError: size is less than now, or no size of a disk.
        """
        if size < volume.size:
            raise DriverRefusedError(
                f"volume {volume.name} cannot become smaller than {volume.size} bytes"
            )
        return sized(volume, size)

    async def clear(self, volume: Volume) -> Volume:
        """Let a volume be blank; what it held becomes a revision.

        Raises:
            VolumeInUseError: the volume was written since the last commit.
        """
        return await asyncio.to_thread(upkeep.clear, self._places, volume)

    async def begin_import(self, volume: Volume, size: int) -> Path:
        """An empty file for size bytes of what is to become the volume's content.

        Raises:
            NoSpaceError, DriverRefusedError: it cannot be made.
        """
        return await asyncio.to_thread(upkeep.begin_import, self._places, volume, size)

    async def is_being_written(self, path: Path) -> bool:
        """Whether somebody has the file of an import open.

        Raises:
            MissingFileError: it is not there any more.
        """
        return await asyncio.to_thread(upkeep.is_being_written, path)

    async def end_import(self, volume: Volume, size: int) -> Volume:
        """What was written to that file becomes the volume's content, of size bytes."""
        return await asyncio.to_thread(upkeep.end_import, self._places, volume, size)

    async def import_image(
        self, volume: Volume, source: Path, image_format: LayerFormat, how: How = "link"
    ) -> Volume:
        """Replace a volume's content by an image of ours, as a template's builder made it.

        link: the image must not be written ever after. The volume grows to the image's size.

        Raises:
            DamagedImageError: the image is not in that format, or needs other files.
        """
        return await asyncio.to_thread(
            upkeep.import_image, self._places, volume, source, image_format, how
        )

    async def clone(self, source: Volume, target: Volume) -> Volume:
        """Give a volume the state of another; they share the layers' blocks.

        Raises:
            VolumeInUseError: the target was written since the last commit.
        """
        return await asyncio.to_thread(upkeep.clone, self._places, source, target)

    async def usage(self, volume: Volume) -> int:
        """Bytes on disk that a volume takes, revisions and unsaved work included."""
        return await asyncio.to_thread(upkeep.usage, self._places, volume)

    async def merge(self, volume: Volume, longest: int = 8) -> Volume:
        """Make one layer of several when the volume has more than longest; else it is unchanged."""
        return await asyncio.to_thread(merging.merge, self._places, volume, longest)

    async def remove(self, owner: UUID) -> None:
        """Remove all volumes of a qube that the store has forgotten; needs no space, nor any file.

        What a crash leaves of them, sweep removes.
        """
        await asyncio.to_thread(upkeep.remove, self._places, owner)

    async def sweep(self, volumes: Iterable[Volume]) -> tuple[str, ...]:
        """Remove all that none of these volumes, which are all there are, names."""
        return await asyncio.to_thread(upkeep.sweep, self._places, tuple(volumes))


def sized(volume: Volume, size: int) -> Volume:
    """A volume with another size, in bytes.

    Raises:
        DriverRefusedError: no disk can have it.
    """
    try:
        return replace(volume, size=size)
    except ValueError as error:
        raise DriverRefusedError(str(error)) from error


async def _opening(work: Callable[[], tuple[Disk, ...]]) -> tuple[Disk, ...]:
    """Run what opens disks; if the caller goes away meanwhile, close them."""
    opening = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opened: "asyncio.Future[tuple[Disk, ...]]") -> None:
    if not opened.cancelled() and opened.exception() is None:
        close(opened.result())
