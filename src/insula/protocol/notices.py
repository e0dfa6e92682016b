"""Notices of a qube's programs, on their way to the person and back (service qubes.Notifications).

One stream each way; both ends are ours: other systems' form of it is nowhere written down.
"""

import enum
import struct
from dataclasses import dataclass, field

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.text import visible

SERVICE = "qubes.Notifications"
MAX_ACTIONS = 4
MAX_BODY = 16_384  # bytes
_LONGEST = {"summary": 200, "body": 2000, "action": 60}  # bytes
_MOST_LINES = 12
_HEADER = struct.Struct("<BI")
_SHOW = struct.Struct("<IBiB")
_NUMBER = struct.Struct("<I")
_CLOSED, _ACTED = struct.Struct("<II"), struct.Struct("<IB")
_LENGTH = struct.Struct("<H")


class _Kind(enum.IntEnum):
    SHOW = 1
    CLOSE = 2
    CLOSED = 3
    ACTED = 4


class Urgency(enum.IntEnum):
    """How much a notice matters, as its program says."""

    LOW = 0
    NORMAL = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Show:
    """A notice, instead of one that has this number already. timeout: ms; -1: as usual."""

    number: int
    urgency: Urgency
    timeout: int
    untrusted_summary: bytes
    untrusted_body: bytes = b""
    untrusted_actions: tuple[bytes, ...] = field(default=())

    def encode(self) -> bytes:
        """As it is sent; what is too long is cut."""
        actions = self.untrusted_actions[:MAX_ACTIONS]
        head = _SHOW.pack(self.number, self.urgency, self.timeout, len(actions))
        texts = (
            self.untrusted_summary[: _LONGEST["summary"]],
            self.untrusted_body[: _LONGEST["body"]],
            *(action[: _LONGEST["action"]] for action in actions),
        )
        return _frame(_Kind.SHOW, head + b"".join(_LENGTH.pack(len(one)) + one for one in texts))

    @property
    def summary(self) -> str:
        """One line that can be shown."""
        return shown(self.untrusted_summary, _LONGEST["summary"])

    @property
    def body(self) -> str:
        """Lines that can be shown."""
        lines = self.untrusted_body[: _LONGEST["body"]].split(b"\n")[:_MOST_LINES]
        return "\n".join(visible(line) for line in lines)

    @property
    def actions(self) -> list[str]:
        """What buttons say."""
        return [shown(action, _LONGEST["action"]) for action in self.untrusted_actions]


@dataclass(frozen=True, slots=True)
class Close:
    """A notice is not to be shown any more."""

    number: int

    def encode(self) -> bytes:
        return _frame(_Kind.CLOSE, _NUMBER.pack(self.number))


@dataclass(frozen=True, slots=True)
class Closed:
    """A notice is not shown any more. reason: as of the desktop's service."""

    number: int
    reason: int

    def encode(self) -> bytes:
        return _frame(_Kind.CLOSED, _CLOSED.pack(self.number, self.reason))


@dataclass(frozen=True, slots=True)
class Acted:
    """The person chose one of a notice's actions."""

    number: int
    index: int

    def encode(self) -> bytes:
        return _frame(_Kind.ACTED, _ACTED.pack(self.number, self.index))


def shown(untrusted: bytes, most: int) -> str:
    """A line that can be shown."""
    return visible(untrusted[:most].replace(b"\n", b" "))


def take_of_qube(received: bytearray) -> Show | Close | None:
    """Remove a qube's first whole message from received; None while bytes are missing.

    Raises:
        ProtocolError: it is not as it must be.
    """
    found = _take(received)
    if found is None:
        return None
    kind, body = found
    if kind == _Kind.CLOSE and len(body) == _NUMBER.size:
        return Close(*_NUMBER.unpack(body))
    if kind != _Kind.SHOW or len(body) < _SHOW.size:
        raise ProtocolError("not a message of a qube about its notices")
    number, urgency, timeout, count = _SHOW.unpack_from(body)
    texts, at = [], _SHOW.size
    while at + _LENGTH.size <= len(body):
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size + length
        texts.append(body[at - length : at])
    if at != len(body) or len(texts) != 2 + count or count > MAX_ACTIONS or not number:
        raise ProtocolError("a notice that is not whole")
    if urgency not in tuple(Urgency) or timeout < -1:
        raise ProtocolError("a notice of no known urgency or time")
    return Show(number, Urgency(urgency), timeout, texts[0], texts[1], tuple(texts[2:]))


def take_of_dom0(received: bytearray) -> Closed | Acted | None:
    """Remove dom0's first whole message from received; None while bytes are missing.

    Raises:
        ProtocolError: it is not as it must be.
    """
    found = _take(received)
    match found:
        case None:
            return None
        case (_Kind.CLOSED, body) if len(body) == _CLOSED.size:
            return Closed(*_CLOSED.unpack(body))
        case (_Kind.ACTED, body) if len(body) == _ACTED.size:
            return Acted(*_ACTED.unpack(body))
    raise ProtocolError("not a message about notices")


def _take(received: bytearray) -> tuple[int, bytes] | None:
    if len(received) < _HEADER.size:
        return None
    kind, length = _HEADER.unpack_from(received)
    if length > MAX_BODY:
        raise ProtocolError(f"a message of {length} bytes")
    end = _HEADER.size + length
    if len(received) < end:
        return None
    body = bytes(received[_HEADER.size : end])
    del received[:end]
    return kind, body


def _frame(kind: _Kind, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body)) + body
