"""Directories that become pools, and stop being ones; all calls block."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from insula.daemon.model.pools import Pool
from insula.daemon.storage import files
from insula.daemon.storage.errors import DriverRefusedError, told
from insula.daemon.storage.places import KERNELS, MARK, VOLATILE, VOLUMES, Places, read_mark

_PROBE, _PROBE_LINK = ".insula-probe", ".insula-probe-link"
_PROBE_SIZE = 64 << 20  # bytes, none of which may take space
_PROBE_MOST = 1 << 20
# Directories of an instance's home that are swept or replaced.
_OURS = (VOLUMES, VOLATILE, KERNELS, "golden", "log")

log = logging.getLogger(__name__)


class Room(NamedTuple):
    """Bytes of the file system a pool lies on."""

    size: int
    used: int


def set_up(places: Places, pool: Pool) -> None:
    """Make a directory ready to hold a pool.

    Raises:
        DriverRefusedError: it cannot hold one.
    """
    directory = _directory(pool)
    with _refused(pool, directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if pool.holds_kernels:
            return
        _require_own(places, pool, directory)
        with files.directory(directory) as root:
            for name in (VOLUMES, VOLATILE):
                files.make_directory(root, name)
            if pool.setup_check:
                _check(root, pool, directory)
            with files.new_file(root, MARK) as mark:
                os.write(mark, f"{pool.mark}\n".encode("ascii"))


def leave(pool: Pool) -> None:
    """A directory that was a pool is none any more; what else lies in it is left."""
    if pool.directory is None or read_mark(Path(pool.directory)) != pool.mark:
        return
    with suppress(OSError), files.directory(Path(pool.directory)) as root:
        files.unlink(root, MARK)
        for name in (VOLUMES, VOLATILE):
            with suppress(OSError):
                os.rmdir(name, dir_fd=root)
        os.fsync(root)


def room(directory: Path) -> Room:
    """What the file system of a pool has.

    Raises:
        MissingFileError: it is not there.
    """
    with told(directory):
        state = os.statvfs(directory)
    return Room(state.f_blocks * state.f_frsize, (state.f_blocks - state.f_bfree) * state.f_frsize)


def present(places: Places) -> Iterator[tuple[str, Path]]:
    """Pools whose directories are there, with these."""
    for name in places.names:
        try:
            yield name, places.root(name)
        except DriverRefusedError as error:
            log.warning("a pool is away", extra={"pool": name, "why": str(error)})


def containing(directory: Path, others: Iterable[tuple[str, Path]]) -> str | None:
    """Which of other pools' directories holds this one, the nearest first."""
    real = directory.resolve()
    found: tuple[int, str] | None = None
    for name, other in others:
        place = other.resolve()
        if real.is_relative_to(place) and (found is None or len(place.parts) > found[0]):
            found = len(place.parts), name
    return None if found is None else found[1]


def _directory(pool: Pool) -> Path:
    if pool.directory is None:
        raise ValueError(f"pool {pool.name} has no directory of its own")
    return Path(pool.directory)


def _require_own(places: Places, pool: Pool, directory: Path) -> None:
    real = directory.resolve()
    roots = [places.home, *(_directory(other) for other in places.pools.values())]
    for root in roots:
        other = root.resolve()
        if real == other or any(real.is_relative_to(other / name) for name in _OURS):
            raise DriverRefusedError(f"{directory} belongs to another pool")
    if (directory / VOLUMES).is_dir() and any((directory / VOLUMES).iterdir()):
        error = DriverRefusedError(f"{directory} holds volumes of another pool or instance")
        error.hint = f"Name another directory for {pool.name}, or move {directory / VOLUMES} away"
        raise error


def _check(root: int, pool: Pool, directory: Path) -> None:
    """Refuse a file system that has no further names for files, or no holes in them."""
    for name in (_PROBE, _PROBE_LINK):
        files.unlink(root, name)
    try:
        with files.new_file(root, _PROBE) as probe:
            os.ftruncate(probe, _PROBE_SIZE)
            holes = os.fstat(probe).st_blocks * 512 <= _PROBE_MOST
        os.link(_PROBE, _PROBE_LINK, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
        links = True
    except OSError:
        links = False
    finally:
        for name in (_PROBE, _PROBE_LINK):
            files.unlink(root, name)
    if not links or not holes:
        error = DriverRefusedError(
            f"The file system of {directory} has no "
            + ("sparse files" if links else "further names for files")
        )
        error.hint = (
            f"Pool {pool.name} would need much time and space there; "
            "to use it nevertheless, add: --option setup_check=False"
        )
        raise error


@contextmanager
def _refused(pool: Pool, directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DriverRefusedError(
            f"Pool {pool.name} cannot use {directory}: {os.strerror(error.errno or 0)}"
        ) from error
