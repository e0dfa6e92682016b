"""Data into a volume: the daemon says where, we write, the daemon takes it over.

Source of the procedure: admin-api.md section 1.5.
"""

import os
from typing import BinaryIO

from insula.client import admin, errors, instance
from insula.protocol.errors import ReportableError

INTERNAL_SOCKET = "qubesd.internal.sock"
_CHUNK = 1 << 20  # bytes
_SERVICE, _SERVICE_WITH_SIZE = "admin.vm.volume.Import", "admin.vm.volume.ImportWithSize"
_BEGIN, _END = "internal.vm.volume.ImportBegin", "internal.vm.volume.ImportEnd"


def import_volume(qube: str, volume: str, source: BinaryIO, size: int | None = None) -> None:
    """Replace a volume's content by what a stream holds, and its size by the one given.

    Raises:
        QubesException: the daemon refuses, or the stream does not hold as much as it should.
    """
    wanted = b"" if size is None else str(size).encode()
    if instance.in_qube():
        _import_from_qube(qube, volume, source, wanted)
        return
    begun = admin.call(qube, _BEGIN, volume, wanted, socket_name=INTERNAL_SOCKET).decode()
    length, _, path = begun.rstrip("\n").partition(" ")
    if not length.isdecimal() or not path:
        raise errors.QubesDaemonCommunicationError(f"not the beginning of an import: {begun!r}")
    try:
        copy_exactly(source, path, int(length))
    except BaseException as error:
        try:
            admin.call(qube, _END, volume, failed(error), socket_name=INTERNAL_SOCKET)
        except errors.QubesException as refused:
            if isinstance(error, (OSError, ReportableError)):
                raise refused from None  # It says what we told it, and what it did.
        raise
    admin.call(qube, _END, volume, b"ok", socket_name=INTERNAL_SOCKET)


def _import_from_qube(qube: str, volume: str, source: BinaryIO, size: bytes) -> None:
    """The same by a program of dom0, to which the data goes."""
    from insula.client import remote  # noqa: PLC0415 - most programs run in dom0

    method = _SERVICE_WITH_SIZE if size else _SERVICE
    first = size + b"\n" if size else b""
    answer = remote.ask_with_data(qube, remote.method_service(method, volume), first, source)
    admin.content_of(answer, method)


def failed(error: BaseException) -> bytes:
    """What tells the daemon that an import came to nothing."""
    text = error.strerror or "" if isinstance(error, OSError) else str(error)
    return f"fail\n{text or type(error).__name__}".encode("ascii", "replace")


def copy_exactly(source: BinaryIO, path: str, size: int) -> None:
    """Write exactly size bytes where they belong, and no block of zeros.

    Raises:
        OSError, ReportableError: they cannot be written, or are more or fewer.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0) as target:
        left = size
        while left:
            chunk = source.read(min(_CHUNK, left))
            if not chunk:
                raise ReportableError(f"the data ends {left} bytes too early")
            left -= len(chunk)
            if chunk.count(0) == len(chunk):
                target.seek(len(chunk), os.SEEK_CUR)
            else:
                _write(target.fileno(), chunk)
        if source.read(1):
            raise ReportableError(f"there are more than {size} bytes of data")
        os.fsync(target.fileno())


def _write(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
