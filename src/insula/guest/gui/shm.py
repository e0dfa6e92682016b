"""A segment shared with the X server by MIT-SHM's AttachFd, which xcffib itself cannot send."""

import ctypes
import mmap
import os
import struct
from typing import Any

from insula.guest.gui.xlib import xcffib

SIZE = 2 * 1024 * 1024  # bytes; larger images pass in strips
_ATTACH_FD = 6  # minor opcode
_CHECKED = 1


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Request(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("opcode", ctypes.c_uint8),
        ("is_void", ctypes.c_uint8),
    )


class Segment:
    """SIZE bytes that both this process and the X server see."""

    def __init__(self, connection: Any) -> None:
        """Raises: xcffib.XcffibException: the X server has no MIT-SHM 1.2 or refuses it."""
        self.id: int = connection.generate_id()
        descriptor = os.memfd_create("segment", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, SIZE)
            self.memory = memoryview(mmap.mmap(descriptor, SIZE))
            _attach(connection, self.id, descriptor)
        finally:
            os.close(descriptor)


def _attach(connection: Any, segment: int, descriptor: int) -> None:
    name = b"MIT-SHM"
    found = connection.core.QueryExtension(len(name), name).reply()
    if not found.present:
        raise xcffib.XcffibException("the X server has no MIT-SHM")
    body = struct.pack("=BBHII", found.major_opcode, _ATTACH_FD, 3, segment, 0)
    held = ctypes.create_string_buffer(body, len(body))
    # libxcb uses the two vectors before those it is given, and one after them for padding.
    vectors = (_Vector * 4)()
    vectors[2] = _Vector(ctypes.cast(held, ctypes.c_void_p), len(body))
    request = _Request(1, None, found.major_opcode, 1)
    passed = (ctypes.c_int * 1)(os.dup(descriptor))  # libxcb closes it
    library = ctypes.CDLL("libxcb.so.1")
    send = library.xcb_send_request_with_fds
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
