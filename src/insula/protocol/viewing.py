"""What a viewer and the person's session tell each other, on a stream socket between the two.

A record is two lengths, a JSON object and raw bytes. The session takes nothing for true that a
viewer says but what a viewer decides anyway: which keys the person pressed in its qube's windows.

| from | op | fields; raw bytes | what |
|---|---|---|---|
| viewer | copied | time, outcome, size, limit, version, paste_key; the text | for the copy key |
| viewer | paste | time, window, limit, version, by_call | the paste key was pressed |
| viewer | fetch | time, limit, version, paste_key | the copy key; the text comes by a call |
| viewer | notice | kind: one of NOTICES | something that the person should know |
| viewer | suspicious | what: for the log | whether the qube is to end? |
| session | text | window; the text | what is pasted |
| session | nothing | | nothing is pasted |
| session | go_on | | the suspicious message is dropped, the qube goes on |

by_call: the text goes to the qube by a call, not by the viewer (gui.md section 9.7).
Times are the X server's, in milliseconds modulo 2**32. outcome is one of OUTCOMES.
"""

import json
import struct
from typing import Any, NamedTuple

from insula.protocol.errors import ProtocolError

COPIED, EMPTY, OVERSIZED, MALFORMED = OUTCOMES = ("copied", "empty", "oversized", "malformed")
COVER, PROTOCOL, OLD_AGENT, OLD_DOM0 = NOTICES = ("cover", "protocol", "old agent", "old dom0")
# A property of the root window: a window of dom0 that no frameless window of a qube may cover.
# That window has it as well, and there it names itself.
IN_FRONT = "_INSULA_IN_FRONT"
MAX_FIELDS = 4_096  # bytes of the object
MAX_RAW = 256_000  # bytes
_LENGTHS = struct.Struct("<II")


class Record(NamedTuple):
    """One message; op is among the fields."""

    fields: dict[str, Any]
    raw: bytes = b""

    def number(self, name: str) -> int:
        """A field that is a number of 32 bits.

        Raises:
            ProtocolError: it is none.
        """
        value = self.fields.get(name)
        if type(value) is not int or not 0 <= value < 1 << 32:
            raise ProtocolError(f"{name} is {value!r}")
        return value

    def text(self, name: str) -> str:
        """A field that is printable ASCII.

        Raises:
            ProtocolError: it is something else.
        """
        value = self.fields.get(name)
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ProtocolError(f"{name} is {value!r}")
        return value


def encode(record: Record) -> bytes:
    """A record's bytes.

    Raises:
        ProtocolError: it is too long.
    """
    fields = json.dumps(record.fields, separators=(",", ":")).encode("ascii")
    if len(fields) > MAX_FIELDS or len(record.raw) > MAX_RAW:
        raise ProtocolError(f"a record of {len(fields)} and {len(record.raw)} bytes")
    return _LENGTHS.pack(len(fields), len(record.raw)) + fields + record.raw


def take(received: bytearray) -> Record | None:
    """Remove the first whole record from received and return it; None while bytes are missing.

    Raises:
        ProtocolError: it is too long, or no record.
    """
    if len(received) < _LENGTHS.size:
        return None
    size, raw_size = _LENGTHS.unpack_from(received)
    if size > MAX_FIELDS or raw_size > MAX_RAW:
        raise ProtocolError(f"a record of {size} and {raw_size} bytes")
    begin, end = _LENGTHS.size + size, _LENGTHS.size + size + raw_size
    if len(received) < end:
        return None
    try:
        fields = json.loads(bytes(received[_LENGTHS.size : begin]))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a record without fields: {error}") from None
    if not isinstance(fields, dict):
        raise ProtocolError("a record's fields are no object")
    raw = bytes(received[begin:end])
    del received[:end]
    return Record(fields, raw)
