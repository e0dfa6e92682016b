"""The stream of a copy, from files (filecopy.md section 3)."""

import os
import stat
import zlib
from collections.abc import Callable

from insula.protocol.filecopy import END, encode_head

_CHUNK = 65_536
_POLL_AFTER = 15_000_000  # bytes of one file between two looks for an early reply


class SourceError(Exception):
    """A file cannot be sent."""


class Sender:
    """Sends files to a descriptor. crc: of all that was sent.

    answered: whether the receiver said something already, which ends the sending. told: called
    with the bytes sent so far.
    """

    def __init__(
        self,
        target: int,
        answered: Callable[[], bool],
        told: Callable[[int], None],
        *,
        ignore_links: bool = False,
    ) -> None:
        self._target, self._answered, self._told = target, answered, told
        self._ignore_links = ignore_links
        self._held = bytearray()
        self.crc = self.sent = 0

    def send(self, path: bytes) -> bool:
        """Send a file, or a directory with all in it; False when the receiver has answered.

        Raises:
            SourceError: something in it cannot be read.
            OSError: the receiver takes no more.
        """
        directory, _, base = path.rpartition(b"/")
        if base in (b"", b".", b".."):
            raise SourceError(f"{os.fsdecode(path)!r} has no name of its own")
        where = directory or (b"/" if path.startswith(b"/") else b".")
        try:
            parent = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"{os.fsdecode(where)}: {error.strerror}") from None
        try:
            return self._entry(parent, base, base)
        finally:
            os.close(parent)

    def end(self) -> None:
        """Send the end of the transfer."""
        self._write(END)
        self._flush()

    def _entry(self, parent: int, base: bytes, name: bytes) -> bool:
        try:
            status = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                return self._file(parent, base, name, status)
            if stat.S_ISDIR(status.st_mode):
                return self._directory(parent, base, name, status)
            if stat.S_ISLNK(status.st_mode) and not self._ignore_links:
                target = os.readlink(base, dir_fd=parent)
                self._head(name, status, len(target))
                self._write(target)
                return not self._answered()
        except OSError as error:
            if error.filename is None:
                raise
            raise SourceError(f"{os.fsdecode(name)}: {error.strerror}") from None
        return True

    def _file(self, parent: int, base: bytes, name: bytes, status: os.stat_result) -> bool:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
        descriptor = os.open(base, flags, dir_fd=parent)
        try:
            self._head(name, status, status.st_size)
            left, unpolled = status.st_size, 0
            while left:
                data = os.read(descriptor, min(left, _CHUNK))
                if not data:
                    raise SourceError(f"{os.fsdecode(name)} became shorter while it was read")
                self._write(data)
                left -= len(data)
                unpolled += len(data)
                self.sent += len(data)
                if unpolled > _POLL_AFTER:
                    unpolled = 0
                    self._told(self.sent)
                    if self._answered():
                        return False
        finally:
            os.close(descriptor)
        return not self._answered()

    def _directory(self, parent: int, base: bytes, name: bytes, status: os.stat_result) -> bool:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(base, flags, dir_fd=parent)
        try:
            self._head(name, status, 0)
            for entry in os.listdir(opened):  # noqa: PTH208 - of a descriptor
                below = os.fsencode(entry)
                if not self._entry(opened, below, name + b"/" + below):
                    return False
        finally:
            os.close(opened)
        self._head(name, status, 0)
        return not self._answered()

    def _head(self, name: bytes, status: os.stat_result, size: int) -> None:
        self._write(encode_head(name, status.st_mode, size, status.st_atime_ns, status.st_mtime_ns))

    def _write(self, data: bytes) -> None:
        """Small pieces go together: each write is a message on its way."""
        self.crc = zlib.crc32(data, self.crc)
        self._held += data
        if len(self._held) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        data = memoryview(bytes(self._held))
        self._held.clear()
        while data:
            data = data[os.write(self._target, data) :]
