"""The 8-byte frame header shared by the control port and qrexec: type and body length.

Source of the format: qrexec-wire.md section 2. Integers are little endian.
"""

import struct
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

HEADER = struct.Struct("<II")


class RawFrame(NamedTuple):
    """A header's type and its body, neither looked into yet."""

    type: int
    body: bytes


def take_raw_frame(received: bytearray, max_body: int) -> RawFrame | None:
    """Remove the first whole frame from received and return it; None while bytes are missing.

    Raises:
        ProtocolError: the header announces a body over max_body bytes.
    """
    if len(received) < HEADER.size:
        return None
    untrusted_type, untrusted_length = HEADER.unpack_from(received)
    if untrusted_length > max_body:
        raise ProtocolError(f"body of {untrusted_length} bytes, the limit is {max_body}")
    end = HEADER.size + untrusted_length
    if len(received) < end:
        return None
    body = bytes(received[HEADER.size : end])
    del received[:end]
    return RawFrame(untrusted_type, body)


def frame(message_type: int, body: bytes = b"") -> bytes:
    """A header and its body."""
    return HEADER.pack(message_type, len(body)) + body
