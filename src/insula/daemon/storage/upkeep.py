"""What is done to volumes between starts; all calls block."""

import errno
import fcntl
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal
from uuid import UUID

from insula.daemon.model.machine import LayerFormat
from insula.daemon.model.volume import Volume
from insula.daemon.storage import files, pools, qcow2
from insula.daemon.storage.errors import (
    DamagedImageError,
    NoSuchRevisionError,
    VolumeInUseError,
    space,
    told,
)
from insula.daemon.storage.places import VOLATILE, VOLUMES, Places
from insula.protocol.errors import ProtocolError

How = Literal["link", "copy"]
IMPORT = "import.raw"  # what is being imported: no layer is called so, and none names it
_SECTOR = 512  # bytes
# Another file system, one without links or with no more for this file, or a file of somebody else.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


def prepare(places: Places) -> None:
    places.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files.directory(places.home) as home:
        for name in (VOLUMES, VOLATILE):
            files.make_directory(home, name)


def create(places: Places, volumes: tuple[Volume, ...]) -> None:
    for volume in volumes:
        if volume.save_on_stop:
            with space(places.root(volume.pool), 4096), places.directory(volume, create=True):
                pass


def commit(places: Places, volume: Volume) -> Volume:
    if not volume.persistent:
        return volume
    try:
        with places.directory(volume) as parent:
            work = files.open_file(parent, volume.work)
            try:
                os.fsync(work)
            finally:
                os.close(work)
            os.fsync(parent)
    except FileNotFoundError:  # It was not started since.
        return volume
    return volume.advanced((*volume.layers, volume.work), _now())


def prune(places: Places, volume: Volume) -> tuple[str, ...]:
    removed = []
    with suppress(FileNotFoundError), places.directory(volume) as parent:
        for name in sorted(files.names(parent) - volume.files):
            files.unlink(parent, name)
            removed.append(f"{volume.owner}/{volume.name}/{name}")
    return tuple(removed)


def revert(places: Places, volume: Volume, revision: int) -> Volume:
    _require_saved(places, volume)
    try:
        return volume.reverted(revision, _now())
    except KeyError:
        raise NoSuchRevisionError(volume.name, str(revision)) from None


def import_image(
    places: Places, volume: Volume, source: Path, image_format: LayerFormat, how: How
) -> Volume:
    _require_saved(places, volume)
    with told(source):
        image = files.open_path(source)
    try:
        size = max(volume.size, _image_size(source, image, image_format))
        name = _given_name(volume.number + 1, image_format)
        with places.directory(volume, create=True) as parent:
            if how == "copy" or not _linked(image, parent, name):
                _copy(places.of(volume), parent, name, image)
            os.fsync(parent)
    finally:
        os.close(image)
    return replace(volume.advanced((name,), _now()), size=size)


def clone(places: Places, source: Volume, target: Volume) -> Volume:
    _require_saved(places, target)
    names: list[str] = []
    if source.layers:
        with (
            told(places.of(source)),
            space(places.root(target.pool), 4096),
            places.directory(source) as origin,
            places.directory(target, create=True) as parent,
        ):
            for number, layer in enumerate(source.layers, target.number + 1):
                name = _given_name(number, layer.rpartition(".")[2])
                image = files.open_file(origin, layer)
                try:
                    if not _linked(image, parent, name):
                        _copy(places.of(target), parent, name, image)
                finally:
                    os.close(image)
                names.append(name)
            os.fsync(parent)
    number = target.number + max(1, len(names))
    return replace(target.advanced(tuple(names), _now()), number=number, size=source.size)


def clear(places: Places, volume: Volume) -> Volume:
    _require_saved(places, volume)
    return volume.advanced((), _now())


def begin_import(places: Places, volume: Volume, size: int) -> Path:
    _require_saved(places, volume)
    where = places.of(volume)
    with space(where, 4096), places.directory(volume, create=True) as parent:
        files.unlink(parent, IMPORT)
        with files.new_file(parent, IMPORT) as blank:
            os.ftruncate(blank, rounded(size))
    return where / IMPORT


def end_import(places: Places, volume: Volume, size: int) -> Volume:
    image = places.of(volume) / IMPORT
    with told(image), files.directory(image.parent) as parent:
        written = files.open_file(parent, IMPORT, writable=True)
        try:
            os.ftruncate(written, rounded(size))  # Whoever wrote it may have made it shorter.
            os.fsync(written)
        finally:
            os.close(written)
    made = import_image(places, volume, image, "raw", "link")
    return replace(made, size=rounded(size))


def is_being_written(path: Path) -> bool:
    """Whether somebody has a file open; where the file system cannot say, nobody has."""
    with told(path), files.directory(path.parent) as parent:
        descriptor = files.open_file(parent, path.name, writable=True)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def rounded(size: int) -> int:
    """The bytes of a disk that holds as many."""
    return -(-size // _SECTOR) * _SECTOR


def usage(places: Places, volume: Volume) -> int:
    total = 0
    with suppress(FileNotFoundError), places.directory(volume) as parent:
        for name in volume.files:
            with suppress(FileNotFoundError):
                state = os.stat(name, dir_fd=parent, follow_symlinks=False)
                total += state.st_blocks * 512
    return total


def remove(places: Places, owner: UUID) -> None:
    for _, root in pools.present(places):
        with files.directory(root, VOLUMES) as parent:
            files.remove_tree(parent, str(owner))
            os.fsync(parent)


def sweep(places: Places, volumes: tuple[Volume, ...]) -> tuple[str, ...]:
    removed: list[str] = []
    for pool, root in pools.present(places):
        inside = tuple(volume for volume in volumes if volume.pool == pool)
        removed += _swept(root, inside)
        for volume in inside:
            removed += prune(places, volume)
    return tuple(removed)


def _swept(root: Path, volumes: tuple[Volume, ...]) -> list[str]:
    """Remove from a pool whatever belongs to none of its volumes."""
    kept: dict[str, set[str]] = {}
    for volume in volumes:
        kept.setdefault(str(volume.owner), set()).add(volume.name)
    removed = []
    with files.directory(root, VOLUMES) as parent:
        for owner in sorted(files.names(parent)):
            if owner not in kept:
                files.remove_tree(parent, owner)
                removed.append(owner)
                continue
            with files.directory(root, VOLUMES, owner) as inner:
                for name in sorted(files.names(inner) - kept[owner]):
                    files.remove_tree(inner, name)
                    removed.append(f"{owner}/{name}")
    with files.directory(root, VOLATILE) as parent:
        for name in files.names(parent):
            files.unlink(parent, name)
    return removed


def has_work(places: Places, volume: Volume) -> bool:
    """Whether a volume was written since the last commit, be it by a qube that runs."""
    try:
        with places.directory(volume) as parent:
            return files.exists(parent, volume.work)
    except FileNotFoundError:
        return False


def _require_saved(places: Places, volume: Volume) -> None:
    if has_work(places, volume):
        raise VolumeInUseError(volume.name)


def _given_name(number: int, image_format: str) -> str:
    """Name of a layer that no machine of this volume wrote.

    Unlike that of any work layer: left over by a crash, it must not be taken for one.
    """
    return f"{number}-{number}.{image_format}"


def _image_size(path: Path, image: int, image_format: LayerFormat) -> int:
    """Bytes of the disk that an image holds."""
    if image_format == "raw":
        size = os.fstat(image).st_size
        if not size or size % 512:
            raise DamagedImageError(path, f"a disk cannot have {size} bytes")
        return size
    try:
        return qcow2.parse_header(os.pread(image, qcow2.CLUSTER, 0)).size
    except ProtocolError as error:
        raise DamagedImageError(path, str(error)) from error


def _linked(image: int, parent: int, name: str) -> bool:
    """Give an open file a further name; False where it cannot have one."""
    files.unlink(parent, name)
    try:
        # Of the open file, so that what was checked is what is linked.
        os.link(f"/proc/self/fd/{image}", name, dst_dir_fd=parent, follow_symlinks=True)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _copy(place: Path, parent: int, name: str, image: int) -> None:
    needed = os.fstat(image).st_blocks * 512
    with space(place, needed), files.new_file(parent, name) as target:
        files.copy(image, target)


def _now() -> float:
    return time.time()
