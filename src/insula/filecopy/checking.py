"""Whether files may be sent under their names, and how much they are (filecopy.md section 9)."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from insula.filecopy.sending import SourceError
from insula.protocol.filecopy_names import check_link, is_shown_safely

_MAX_SIZE = 2**64 - 1


@dataclass(slots=True)
class Checked:
    """size: bytes of files and links. safe: whether all names have allowed characters alone."""

    size: int = 0
    safe: bool = True


def check(paths: list[bytes], *, ignore_links: bool) -> Checked:
    """Look at all files below paths.

    Raises:
        SourceError: one cannot be sent, or not read.
    """
    found = Checked()
    for path in paths:
        base = path.rpartition(b"/")[2]
        if base in (b"", b".", b".."):
            raise SourceError(f"{os.fsdecode(path)!r} has no name of its own")
        try:
            for name, full, status in _walk(path, base):
                _look(found, name, full, status, ignore_links=ignore_links)
        except RecursionError:
            raise SourceError(
                f"{os.fsdecode(path)}: directories lie too deep in each other"
            ) from None
    return found


def _look(
    found: Checked, name: bytes, full: bytes, status: os.stat_result, *, ignore_links: bool
) -> None:
    if stat.S_ISLNK(status.st_mode):
        if ignore_links:
            return
        target = os.readlink(full)  # noqa: PTH115 - names are bytes here
        if check_link(name, target, any_characters=True):
            raise SourceError(
                f"{os.fsdecode(full)} is a symbolic link that would not work over there; "
                "leave links out with --ignore-symlinks"
            )
        found.safe &= is_shown_safely(target)
    if stat.S_ISLNK(status.st_mode) or stat.S_ISREG(status.st_mode):
        found.size += status.st_size
        if found.size > _MAX_SIZE:
            raise SourceError("more than 2^64 bytes cannot be sent at once")
    found.safe &= is_shown_safely(name)


def _walk(path: bytes, name: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Each file's name in the stream, its path and its status."""
    try:
        status = os.lstat(path)
        yield name, path, status
        if stat.S_ISDIR(status.st_mode):
            for entry in os.listdir(path):  # noqa: PTH208 - names are bytes here
                yield from _walk(path + b"/" + entry, name + b"/" + entry)
    except OSError as error:
        raise SourceError(f"{os.fsdecode(path)}: {error.strerror}") from None
