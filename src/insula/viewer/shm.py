"""How pixels reach the X server: a segment of our own by MIT-SHM's AttachFd, else PutImage.

xcffib cannot send descriptors, so the one request that needs it goes through libxcb directly. A
System V segment would not do: a jail has its own IPC namespace.
"""

import ctypes
import mmap
import os
import socket
import struct
from typing import Any

from insula.viewer.xlib import xcffib

SIZE = 1024 * 1024  # bytes; larger images pass in strips
_STRIP_WITHOUT_SHM = 128 * 1024  # bytes in one PutImage request; every X server takes 256 KiB
_ATTACH_FD = 6  # minor opcode
_FIRST_WITH_DESCRIPTORS = (1, 2)  # MIT-SHM version
_CHECKED = 1
_Z_PIXMAP = 2


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Request(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("opcode", ctypes.c_uint8),
        ("is_void", ctypes.c_uint8),
    )


class Canvas:
    """A strip of pixels to fill and put; at most one strip is on its way to the X server."""

    def __init__(self, connection: Any, context: int, depth: int, *, shared: bool = True) -> None:
        self._connection = connection
        self._context = context
        self._depth = depth
        self._fence: Any = None
        self._segment: int | None = None
        memory = self._attach() if shared else None
        self.shared = memory is not None
        self._memory = memory or memoryview(bytearray(_STRIP_WITHOUT_SHM))

    @property
    def size(self) -> int:
        """Bytes of a strip."""
        return len(self._memory)

    def strip(self) -> memoryview:
        """The strip to fill, as soon as the X server has read what it held before."""
        if self._fence is not None:
            self._fence.reply()
            self._fence = None
        return self._memory

    def put(self, window: int, x: int, y: int, width: int, height: int) -> None:
        """Draw width * height tightly packed pixels of the strip at (x, y) of a window."""
        if self._segment is None:
            data = bytes(self._memory[: width * height * 4])
            self._connection.core.PutImage(
                _Z_PIXMAP, window, self._context, width, height, x, y, 0, self._depth,
                len(data), data,
            )  # fmt: skip
        else:
            self._connection(xcffib.shm.key).PutImage(
                window, self._context, width, height, 0, 0, width, height, x, y,
                self._depth, _Z_PIXMAP, False, self._segment, 0,
            )  # fmt: skip
        self._fence = self._connection.core.GetInputFocus()

    def _attach(self) -> memoryview | None:
        """A segment that the X server has mapped; None where it cannot."""
        name = b"MIT-SHM"
        found = self._connection.core.QueryExtension(len(name), name).reply()
        if not found.present or not _passes_descriptors(self._connection):
            return None
        version = self._connection(xcffib.shm.key).QueryVersion().reply()
        if (version.major_version, version.minor_version) < _FIRST_WITH_DESCRIPTORS:
            return None
        descriptor = os.memfd_create("segment", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, SIZE)
            segment: int = self._connection.generate_id()
            _attach_descriptor(self._connection, found.major_opcode, segment, descriptor)
            self._segment = segment
            return memoryview(mmap.mmap(descriptor, SIZE))
        except xcffib.ConnectionException:
            raise
        except (xcffib.XcffibException, LookupError):
            return None
        finally:
            os.close(descriptor)


def _passes_descriptors(connection: Any) -> bool:
    """Whether the X server is behind a unix socket; sending a descriptor elsewhere ends libxcb."""
    with socket.socket(fileno=os.dup(connection.get_file_descriptor())) as tested:
        return tested.family == socket.AF_UNIX


def _attach_descriptor(connection: Any, major: int, segment: int, descriptor: int) -> None:
    """Send ShmAttachFd, read-only for the X server, and wait for its success.

    Raises:
        xcffib.XcffibException: the X server refused.
    """
    body = struct.pack("=BBHIB3x", major, _ATTACH_FD, 3, segment, 1)
    held = ctypes.create_string_buffer(body, len(body))
    # libxcb uses the two vectors before those it is given, and one after them for padding.
    vectors = (_Vector * 4)()
    vectors[2] = _Vector(ctypes.cast(held, ctypes.c_void_p), len(body))
    request = _Request(1, None, major, 1)
    passed = (ctypes.c_int * 1)(os.dup(descriptor))  # libxcb closes it
    send = ctypes.CDLL("libxcb.so.1").xcb_send_request_with_fds
    send.restype = ctypes.c_uint
    pointer = int(xcffib.ffi.cast("uintptr_t", connection._conn))
    sequence = send(
        ctypes.c_void_p(pointer),
        ctypes.c_int(_CHECKED),
        ctypes.byref(vectors, 2 * ctypes.sizeof(_Vector)),
        ctypes.byref(request),
        ctypes.c_uint(1),
        passed,
    )
    connection.request_check(sequence)
