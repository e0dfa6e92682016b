"""The 8-byte frame header shared by the control port and qrexec: type and body length.

Source of the format: qrexec-wire.md section 2. Integers are little endian.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

HEADER = struct.Struct("<II")


class RawFrame(NamedTuple):
    """A header's type and its body, neither looked into yet."""

    type: int
    body: bytes


def take_raw_frame(
    received: bytearray, max_body: int, check: Callable[[int, int], None] | None = None
) -> RawFrame | None:
    """Remove the first whole frame from received and return it; None while bytes are missing.

    check: told type and length as soon as they are there; raises a ProtocolError for those that
    are not to be waited for.

    Raises:
        ProtocolError: the header announces a body over max_body bytes, or check raised it.
    """
    if len(received) < HEADER.size:
        return None
    untrusted_type, untrusted_length = HEADER.unpack_from(received)
    if untrusted_length > max_body:
        raise ProtocolError(f"body of {untrusted_length} bytes, the limit is {max_body}")
    if check is not None:
        check(untrusted_type, untrusted_length)
    end = HEADER.size + untrusted_length
    if len(received) < end:
        return None
    body = bytes(received[HEADER.size : end])
    del received[:end]
    return RawFrame(untrusted_type, body)


def frame(message_type: int, body: bytes = b"") -> bytes:
    """A header and its body."""
    return HEADER.pack(message_type, len(body)) + body
