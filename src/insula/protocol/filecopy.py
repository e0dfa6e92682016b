"""The stream of qubes.Filecopy: headers of records, and the one reply.

Source of the format: filecopy.md sections 2, 4 and 5. Integers are little endian.
"""

import struct
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

HEADER = struct.Struct("<IIQIIII")
LEGAL_EOF = 31_415_926  # in place of an error number: the stream ended inside a record
END = bytes(HEADER.size)
MAX_NANOSECONDS = 999_999_999
MAX_REPLY_NAME = 16_384  # bytes
_REPLY = struct.Struct("<IIQ")
_LENGTH = struct.Struct("<I")
_SECOND = 1_000_000_000
_SHOWN = bytes(
    byte if 0x20 <= byte <= 0x7E and byte != ord('"') else ord("_") for byte in range(256)
)


class Header(NamedTuple):
    """What comes before a name. Times are whole seconds and nanoseconds."""

    namelen: int
    mode: int
    filelen: int
    atime: int
    atime_nsec: int
    mtime: int
    mtime_nsec: int

    @property
    def times(self) -> tuple[int, int]:
        """Nanoseconds of the last access and the last change."""
        return self.atime * _SECOND + self.atime_nsec, self.mtime * _SECOND + self.mtime_nsec


def decode_header(data: bytes) -> Header:
    """Read a header; its numbers are not checked."""
    return Header(*HEADER.unpack(data))


def encode_head(name: bytes, mode: int, size: int, atime_ns: int, mtime_ns: int) -> bytes:
    """A record's header and name."""
    return (
        HEADER.pack(
            len(name) + 1,
            mode,
            size,
            atime_ns // _SECOND & 0xFFFF_FFFF,
            atime_ns % _SECOND,
            mtime_ns // _SECOND & 0xFFFF_FFFF,
            mtime_ns % _SECOND,
        )
        + name
        + b"\0"
    )


class Reply(NamedTuple):
    """What the receiver says at the end. last_name: None where it says nothing of one."""

    code: int
    crc: int
    last_name: bytes | None = b""

    def encode(self) -> bytes:
        data = _REPLY.pack(self.code, 0, self.crc)
        if self.last_name is None:
            return data
        return data + _LENGTH.pack(len(self.last_name)) + self.last_name

    @classmethod
    def decode(cls, untrusted: bytes) -> "Reply":
        """Read all that a receiver sent.

        Raises:
            ProtocolError: it is no whole reply.
        """
        if len(untrusted) < _REPLY.size:
            raise ProtocolError(f"a reply of {len(untrusted)} bytes")
        code, _, crc = _REPLY.unpack_from(untrusted)
        rest = untrusted[_REPLY.size :]
        if not rest:
            return cls(code, crc)
        if len(rest) < _LENGTH.size:
            raise ProtocolError("a reply that breaks off")
        (length,) = _LENGTH.unpack_from(rest)
        name = rest[_LENGTH.size :]
        if length > MAX_REPLY_NAME or len(name) < length:
            raise ProtocolError(f"a reply with a name of {length} bytes")
        return cls(code, crc, name[:length])

    @staticmethod
    def wanted(untrusted: bytes) -> int:
        """How many bytes more of a reply may come after these; 0 when it is whole."""
        long = _REPLY.size + _LENGTH.size
        if len(untrusted) < long:
            return long - len(untrusted)
        length: int = _LENGTH.unpack_from(untrusted, _REPLY.size)[0]
        return max(0, long + min(length, MAX_REPLY_NAME) - len(untrusted))

    @property
    def shown_name(self) -> str:
        """The last name as it may be shown."""
        return (self.last_name or b"").translate(_SHOWN).decode("ascii")
