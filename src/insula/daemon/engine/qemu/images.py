"""Memory images: what clones map, sealed so that no clone can change it for another."""

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
SIZE_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_CHUNK = 64 * 1024 * 1024
_PAGE = 4096
_ZEROS = bytes(_PAGE)
_SEAL_TIMEOUT = 10.0
_SEAL_POLL = 0.05


def blank(name: str, size: int, seals: int = 0) -> int:
    """A new memory file of size bytes, all holes; returns its descriptor."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def load_sealed(path: Path) -> int:
    """A sealed memory file with the content of path; holes stay holes."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target = blank("insula-ram", os.fstat(source).st_size)
        try:
            copy_sparse(source, target)
            _seal(target)
        except BaseException:
            os.close(target)
            raise
        return target
    finally:
        os.close(source)


def _seal(descriptor: int) -> None:
    """Add the seals, once the kernel has let go of the pages.

    While it moves or collapses one, it refuses with EBUSY, as if somebody were writing.
    """
    deadline = time.monotonic() + _SEAL_TIMEOUT
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_SEAL_POLL)
        else:
            return


def store(descriptor: int, path: Path) -> None:
    """Write a memory file to disk, zeros as holes, and make it durable."""
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(target, os.fstat(descriptor).st_size)
        for start, stop in _extents(descriptor):
            _copy_nonzero(descriptor, target, start, stop)
        os.fsync(target)
    finally:
        os.close(target)


def copy_sparse(source: int, target: int) -> None:
    """Copy what is not a hole from source to target, at the same places."""
    for start, stop in _extents(source):
        _copy_range(source, target, start, stop)


def _extents(source: int) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of what is not a hole."""
    end = os.fstat(source).st_size
    at = 0
    while at < end:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # Nothing but a hole from here.
                return
            raise
        at = os.lseek(source, start, os.SEEK_HOLE)
        yield start, at


def _copy_nonzero(source: int, target: int, start: int, stop: int) -> None:
    """Copy runs of pages that are not all zeros."""
    with mmap.mmap(source, stop - start, prot=mmap.PROT_READ, offset=start) as mapped:
        begin = None
        for at in range(0, stop - start, _PAGE):
            if mapped[at : at + _PAGE] == _ZEROS:
                if begin is not None:
                    _copy_range(source, target, start + begin, start + at)
                    begin = None
            elif begin is None:
                begin = at
        if begin is not None:
            _copy_range(source, target, start + begin, stop)


def _copy_range(source: int, target: int, start: int, stop: int) -> None:
    os.lseek(target, start, os.SEEK_SET)
    at = start
    while at < stop:
        moved = os.sendfile(target, source, at, min(stop - at, _CHUNK))
        if moved == 0:
            raise OSError(errno.EIO, "the source ended early")
        at += moved
