"""QubesDB's messages on its local sockets, and what keys and values may be.

Source of the format: in-qube.md section 1.1.
"""

import enum
import struct
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

HEADER = struct.Struct("<B64s3xI")
MAX_PATH = 63  # bytes
MAX_VALUE = 3071  # bytes that the store takes
MAX_DATA = 3072  # bytes that a message may have
_PATH_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/.:@-")


class MessageType(enum.IntEnum):
    """First byte of a header."""

    READ = 0
    WRITE = 1
    MULTIREAD = 2
    LIST = 3
    RM = 4
    WATCH = 5
    UNWATCH = 6
    RESP_OK = 7
    RESP_ERROR_NOENT = 8
    RESP_ERROR = 9
    RESP_READ = 10
    RESP_MULTIREAD = 11
    RESP_LIST = 12
    RESP_WATCH = 13


class Message(NamedTuple):
    """type: as it came, perhaps none of those above."""

    type: int
    path: bytes
    data: bytes = b""

    def encode(self) -> bytes:
        return HEADER.pack(self.type, self.path, len(self.data)) + self.data


def take_message(received: bytearray) -> Message | None:
    """Remove the first whole message; None while bytes are missing.

    Raises:
        ProtocolError: it has more data than one may have, or a path without end.
    """
    if len(received) < HEADER.size:
        return None
    kind, padded, length = HEADER.unpack_from(received)
    if length > MAX_DATA:
        raise ProtocolError(f"{length} bytes of data")
    path, nul, _ = padded.partition(b"\0")
    if not nul:
        raise ProtocolError("a path without end")
    if len(received) < HEADER.size + length:
        return None
    data = bytes(received[HEADER.size : HEADER.size + length])
    del received[: HEADER.size + length]
    return Message(kind, path, data)


def is_key(path: bytes) -> bool:
    """Whether a path may be one of a value."""
    return is_prefix(path) and not path.endswith(b"/")


def is_prefix(path: bytes) -> bool:
    """Whether a path may stand for itself or for what begins with it."""
    return path.startswith(b"/") and len(path) <= MAX_PATH and _PATH_BYTES.issuperset(path)


def is_value(data: bytes) -> bool:
    """Whether data may be a value."""
    return len(data) <= MAX_VALUE and b"\0" not in data
