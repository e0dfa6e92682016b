"""What can go wrong with volumes, as its reader can act on it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from insula.protocol.errors import ReportableError

_MIB = 1 << 20


class StorageError(ReportableError):
    """An operation on a volume that failed, and left the volume as it was."""

    api_name = "QubesException"


class DriverRefusedError(StorageError):
    """What a volume's kind or state does not allow."""

    api_name = "StoragePoolException"


class NoSpaceError(StorageError):
    """A file system is full; sizes in bytes."""

    def __init__(self, directory: Path, free: int, needed: int) -> None:
        super().__init__(
            f"no space left in {directory}: {free // _MIB} MiB free, "
            f"at least {-(-needed // _MIB)} MiB needed"
        )
        self.directory, self.free, self.needed = directory, free, needed
        self.hint = "Remove a qube with qvm-remove, or free space on that file system"


class NoSuchRevisionError(DriverRefusedError):
    def __init__(self, volume: str, revision: str) -> None:
        super().__init__(f"volume {volume} has no revision {revision}")


class VolumeInUseError(DriverRefusedError):
    def __init__(self, volume: str) -> None:
        super().__init__(f"volume {volume} holds unsaved changes")
        self.hint = "Shut its qube down first"


class PoolAwayError(DriverRefusedError):
    """A pool's directory is not there, or another is in its place."""

    def __init__(self, pool: str, directory: Path | None) -> None:
        where = "" if directory is None else f": {directory} is not its directory"
        super().__init__(f"pool {pool} is not there{where}")
        self.hint = "Mount the file system it lies on" if directory is not None else None


class MissingFileError(StorageError):
    """A file that the store names is not there or cannot be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot open {path}: {reason}")


class DamagedImageError(StorageError):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"image {path} is damaged: {reason}")
        self.hint = "Revert the volume to an older revision: qvm-volume revert"


def free_space(directory: Path) -> int:
    """Bytes that an ordinary user can still write there."""
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize


@contextmanager
def space(directory: Path, needed: int) -> Iterator[None]:
    """Say it in a NoSpaceError when the block runs out of space; needed: bytes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpaceError(directory, free_space(directory), needed) from error


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say which path it was when the block cannot find or open a file."""
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.ENOENT,
            errno.ENOTDIR,
            errno.ELOOP,
            errno.EACCES,
            errno.EINVAL,
        ):
            raise
        raise MissingFileError(path, os.strerror(error.errno)) from error
