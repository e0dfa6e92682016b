"""Files reached step by step from a directory of ours, never through a link; all calls block."""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409  # ioctl of linux/fs.h: share all blocks of another file
_CHUNK = 16 << 20  # bytes


@contextmanager
def directory(root: Path, *names: str, create: bool = False) -> Iterator[int]:
    """A descriptor of a directory below root, which may itself be reached through links."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            if create:
                make_directory(descriptor, name)
            inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def make_directory(parent: int, name: str) -> None:
    """Make a directory that nobody else may enter; one that exists is left alone."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)


def open_file(parent: int, name: str, *, writable: bool = False) -> int:
    """A fresh open of a regular file: each machine needs its own, as locks on images are by open.

    Raises:
        OSError: there is none, or it is something else.
    """
    access = os.O_RDWR if writable else os.O_RDONLY
    flags = access | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(name, flags, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor


def open_path(path: Path, *, writable: bool = False) -> int:
    """open_file for a path whose directory is trusted."""
    with directory(path.parent) as parent:
        return open_file(parent, path.name, writable=writable)


def open_unnamed(place: Path) -> int:
    """A new file without a name on the file system of place: gone with its last descriptor."""
    try:
        return os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    with directory(place) as parent:
        name = os.urandom(16).hex()
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        os.unlink(name, dir_fd=parent)
        return descriptor


@contextmanager
def new_file(parent: int, name: str) -> Iterator[int]:
    """Write a file that appears under its name whole and durable, or not at all."""
    unfinished = f"{name}.new"
    unlink(parent, unfinished)
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, 0o600, dir_fd=parent)
    try:
        yield descriptor
        os.fsync(descriptor)
        os.rename(unfinished, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        unlink(parent, unfinished)
        raise
    finally:
        os.close(descriptor)
    os.fsync(parent)


def unlink(parent: int, name: str) -> None:
    """Remove a file; one that is not there is fine."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def remove_tree(parent: int, name: str) -> None:
    """Remove whatever has a name, with all in it, following no link; none is fine."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)


def names(parent: int) -> set[str]:
    """Names of all that lies in a directory."""
    with os.scandir(parent) as entries:
        return {entry.name for entry in entries}


def exists(parent: int, name: str) -> bool:
    """Whether a name is taken, be it by a dangling link."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def copy(source: int, target: int) -> None:
    """Make target, which is empty, the same as source: shared blocks where the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY):
            raise
        copy_sparse(source, target)


def copy_sparse(source: int, target: int) -> None:
    """Copy what is not a hole to the same places, and give target the size of source."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # Nothing but a hole from here.
                return
            raise
        at = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        while start < at:
            copied = os.sendfile(target, source, start, min(at - start, _CHUNK))
            if copied == 0:
                raise OSError(errno.EIO, "the source ended early")
            start += copied
