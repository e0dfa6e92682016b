"""Making the files of a stream, below one directory and nowhere else (filecopy.md section 7).

Names are split into components and each directory is opened from the one before, never following
a link: whatever the stream says, nothing outside of the directory is reached.
"""

import errno
import os
import stat
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from insula.protocol.filecopy import (
    HEADER,
    LEGAL_EOF,
    MAX_NANOSECONDS,
    Header,
    Reply,
    decode_header,
)
from insula.protocol.filecopy_names import MAX_NAME, check_link, check_name

_CHUNK = 65_536
_MAX_SIZE = 2**63 - 1
_PERMISSIONS = 0o7777
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
_NO_TMPFILE = (errno.ENOENT, errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_SPACE_POLL = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a receiver accepts. Limits of 0 are none.

    spare: bytes that have to be free beyond each file before it is taken; None: it is not waited
    for. told: called with the name of everything but directories.
    """

    any_names: bool = False
    unsafe_links: bool = False
    links: bool = True
    directories: bool = True
    max_files: int = 0
    max_bytes: int = 0
    spare: int | None = None
    told: Callable[[bytes], None] = lambda _name: None


class BadTimesError(Exception):
    """Times that are none: the transfer ends without a reply."""


class _FailedError(Exception):
    """Ends the transfer. code: for the reply. last_name: what it says of a name."""

    def __init__(self, code: int, last_name: bytes | None) -> None:
        super().__init__(code)
        self.code, self.last_name = code, last_name


class _EndedError(Exception):
    """The stream ended before all that was wanted of it."""


class _Stream:
    """Bytes from a descriptor, and their checksum. crc: of what was accepted so far."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self.crc = 0

    def exactly(self, size: int) -> bytes:
        """So many bytes.

        Raises:
            _EndedError: there are fewer; they are not counted.
        """
        while len(self._buffer) < size:
            data = os.read(self._descriptor, _CHUNK)
            if not data:
                raise _EndedError
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        self.crc = zlib.crc32(data, self.crc)
        return data

    def some(self, most: int) -> bytes:
        """At least one byte, at most so many.

        Raises:
            _EndedError: there is none.
        """
        if not self._buffer:
            self._buffer = os.read(self._descriptor, _CHUNK)
        data, self._buffer = self._buffer[:most], self._buffer[most:]
        if not data:
            raise _EndedError
        self.crc = zlib.crc32(data, self.crc)
        return data


class Receiver:
    """Receives one stream into a directory, which is open as top.

    processes: a descriptor of /proc/self/fd, by which a finished file gets its name; -1 for none.
    """

    def __init__(self, source: int, top: int, processes: int, rules: Rules) -> None:
        self._stream = _Stream(source)
        self._top, self._processes, self._rules = top, processes, rules
        self._parent: tuple[bytes, int] = (b"", os.dup(top))
        self._files = self._bytes = 0
        self._last: bytes = b""
        self._anonymous = processes >= 0

    def receive(self) -> Reply:
        """Take all records; what is to be replied.

        Raises:
            BadTimesError: nothing is to be replied.
        """
        try:
            while self._record():
                pass
        except _FailedError as failure:
            return Reply(failure.code, self._stream.crc, failure.last_name)
        except OSError as error:
            return Reply(error.errno or errno.EIO, self._stream.crc, self._last)
        finally:
            os.close(self._parent[1])
        return Reply(0, self._stream.crc, self._last)

    def _record(self) -> bool:
        """Take one record; False at the end of the transfer."""
        try:
            header = decode_header(self._stream.exactly(HEADER.size))
        except _EndedError:
            raise _FailedError(errno.EREMOTEIO, self._last) from None
        if header.namelen == 0:
            return False
        if header.namelen > MAX_NAME:
            raise _FailedError(errno.ENAMETOOLONG, None)
        if max(header.atime_nsec, header.mtime_nsec) > MAX_NANOSECONDS:
            raise BadTimesError
        try:
            name = self._stream.exactly(header.namelen).partition(b"\0")[0]
        except _EndedError:
            raise _FailedError(LEGAL_EOF, None) from None
        self._last = name
        self._files += 1
        if self._rules.max_files and self._files > self._rules.max_files:
            raise _FailedError(errno.EDQUOT, name)
        if code := check_name(name, any_characters=self._rules.any_names):
            raise _FailedError(code, name)
        self._take(header, name)
        return True

    def _count(self, size: int) -> None:
        """Hold what a record has to come against the limits, before anything of it is read."""
        self._bytes += size
        most = self._rules.max_bytes
        if size > _MAX_SIZE or (most and self._bytes > most):
            raise _FailedError(errno.EDQUOT, self._last)

    def _take(self, header: Header, name: bytes) -> None:
        directory, _, base = name.rpartition(b"/")
        if stat.S_ISREG(header.mode):
            self._count(header.filelen)
            self._rules.told(name)
            self._wait_for_space(header.filelen)
            self._take_file(header, self._open(directory), base)
        elif stat.S_ISDIR(header.mode) and self._rules.directories:
            _make_directory(header, self._open(directory), base)
            self._bytes += header.filelen  # Only what comes after it is held against the limit.
        elif stat.S_ISLNK(header.mode) and self._rules.links:
            self._count(header.filelen)
            self._rules.told(name)
            self._take_link(header, name)
        else:
            raise _FailedError(errno.EINVAL, name)

    def _open(self, directory: bytes) -> int:
        """A directory's descriptor; the last one is kept, as most files follow each other."""
        if directory == self._parent[0]:
            return self._parent[1]
        opened = os.dup(self._top)
        for part in directory.split(b"/") if directory else ():
            try:
                below = os.open(part, _DIRECTORY, dir_fd=opened)
            except OSError as error:
                raise _FailedError(error.errno or errno.EIO, part) from None
            finally:
                os.close(opened)
            opened = below
        os.close(self._parent[1])
        self._parent = (directory, opened)
        return opened

    def _wait_for_space(self, size: int) -> None:
        while self._rules.spare is not None:
            free = os.fstatvfs(self._top)
            if free.f_bavail * free.f_frsize >= size + self._rules.spare:
                return
            time.sleep(_SPACE_POLL)

    def _take_file(self, header: Header, parent: int, base: bytes) -> None:
        descriptor, anonymous = self._create(parent, base)
        try:
            left = header.filelen
            while left:
                try:
                    data = self._stream.some(left)
                except _EndedError:
                    raise _FailedError(LEGAL_EOF, self._last) from None
                left -= len(data)
                while data:
                    data = data[os.write(descriptor, data) :]
            if anonymous:
                number = str(descriptor).encode()
                os.link(number, base, src_dir_fd=self._processes, dst_dir_fd=parent)
            os.fchmod(descriptor, header.mode & _PERMISSIONS)
            os.utime(descriptor, ns=header.times)
        finally:
            os.close(descriptor)

    def _create(self, parent: int, base: bytes) -> tuple[int, bool]:
        """A new file, and whether it has no name yet."""
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY
        if self._anonymous:
            try:
                return os.open(b".", flags | os.O_TMPFILE, 0o700, dir_fd=parent), True
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
                self._anonymous = False
        created = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(base, flags | created, 0, dir_fd=parent), False

    def _take_link(self, header: Header, name: bytes) -> None:
        if header.filelen > MAX_NAME:
            raise _FailedError(errno.ENAMETOOLONG, name)
        try:
            target = self._stream.exactly(header.filelen)
        except _EndedError:
            raise _FailedError(LEGAL_EOF, name) from None
        target = target.partition(b"\0")[0]
        rules = self._rules
        code = check_link(name, target, any_characters=rules.any_names, unsafe=rules.unsafe_links)
        if code:
            raise _FailedError(code, target)
        directory, _, base = name.rpartition(b"/")
        os.symlink(target, base, dir_fd=self._open(directory))


def _make_directory(header: Header, parent: int, base: bytes) -> None:
    """The first time it is made, the second time it gets its mode and times."""
    try:
        os.mkdir(base, 0o700, dir_fd=parent)
    except FileExistsError:
        opened = os.open(base, _DIRECTORY, dir_fd=parent)
        try:
            os.fchmod(opened, header.mode & _PERMISSIONS)
            os.utime(opened, ns=header.times)
        finally:
            os.close(opened)
