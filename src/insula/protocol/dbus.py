"""Messages of D-Bus, as far as notices need them (D-Bus Specification, sections on marshalling).

Values are Python's own: a dict for an array of dict entries, a tuple for a struct, a Variant.
"""

import enum
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from insula.protocol.errors import ProtocolError

MAX_MESSAGE = 1 << 20  # bytes; a picture in a notice may be large
_DEEPEST = 8
_VERSION = 1
_HEAD = struct.Struct("<4sIII")
_LITTLE = ord("l")
_FIXED = {
    "y": struct.Struct("<B"),
    "b": struct.Struct("<I"),
    "n": struct.Struct("<h"),
    "q": struct.Struct("<H"),
    "i": struct.Struct("<i"),
    "u": struct.Struct("<I"),
    "h": struct.Struct("<I"),
    "x": struct.Struct("<q"),
    "t": struct.Struct("<Q"),
    "d": struct.Struct("<d"),
}
_ALIGNED = {"s": 4, "o": 4, "a": 4, "(": 8, "{": 8, "g": 1, "v": 1}


class Kind(enum.IntEnum):
    """Type of a message."""

    CALL = 1
    RETURN = 2
    ERROR = 3
    SIGNAL = 4


class Variant(NamedTuple):
    """A value that says its type."""

    signature: str
    value: Any


class _Field(enum.IntEnum):
    PATH = 1
    INTERFACE = 2
    MEMBER = 3
    ERROR_NAME = 4
    REPLY_SERIAL = 5
    DESTINATION = 6
    SENDER = 7
    SIGNATURE = 8


_SIGNATURES = {
    _Field.PATH: "o",
    _Field.REPLY_SERIAL: "u",
    _Field.SIGNATURE: "g",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. fields that it does not have are empty."""

    kind: Kind
    serial: int = 0
    path: str = ""
    interface: str = ""
    member: str = ""
    error_name: str = ""
    reply_serial: int = 0
    destination: str = ""
    sender: str = ""
    signature: str = ""
    body: tuple[Any, ...] = field(default=())

    def encode(self, serial: int) -> bytes:
        """The message as it is sent."""
        fields = [
            (one, Variant(_SIGNATURES.get(one, "s"), value))
            for one, value in zip(_Field, self._values(), strict=True)
            if value
        ]
        body = _Writer()
        for signature, value in zip(split(self.signature), self.body, strict=True):
            body.put(signature, value)
        head = _Writer()
        head.data += _HEAD.pack(bytes((_LITTLE, self.kind, 0, _VERSION)), len(body.data), serial, 0)
        del head.data[-4:]
        head.put("a(yv)", fields)
        head.align(8)
        return bytes(head.data + body.data)

    def answer(self, signature: str = "", *body: Any) -> "Message":
        """What answers this call."""
        return Message(
            kind=Kind.RETURN,
            reply_serial=self.serial,
            destination=self.sender,
            signature=signature,
            body=body,
        )

    def refusal(self, error_name: str) -> "Message":
        """What refuses this call."""
        return Message(
            kind=Kind.ERROR,
            reply_serial=self.serial,
            destination=self.sender,
            error_name=error_name,
        )

    def _values(self) -> tuple[str | int, ...]:
        return (
            *(self.path, self.interface, self.member, self.error_name, self.reply_serial),
            *(self.destination, self.sender, self.signature),
        )


def take_message(received: bytearray) -> Message | None:
    """Remove the first whole message from received and return it; None while bytes are missing.

    Raises:
        ProtocolError: what came is no message, or one of over MAX_MESSAGE bytes.
    """
    if len(received) < _HEAD.size:
        return None
    start, body_length, serial, fields_length = _HEAD.unpack_from(received)
    if start[0] != _LITTLE or start[3] != _VERSION:
        raise ProtocolError("a message of an unknown form")
    head_length = (_HEAD.size + fields_length + 7) // 8 * 8
    length = head_length + body_length
    if length > MAX_MESSAGE:
        raise ProtocolError(f"a message of {length} bytes")
    if len(received) < length:
        return None
    message = bytes(received[:length])
    del received[:length]
    return _decoded(message, start[1], serial, head_length)


def _decoded(message: bytes, kind: int, serial: int, head_length: int) -> Message:
    reader = _Reader(message)
    reader.at = _HEAD.size - 4
    (listed,) = reader.take("a(yv)")
    fields: dict[int, Any] = {}
    for number, variant in listed:
        fields[number] = variant.value
    signature = fields.get(_Field.SIGNATURE, "")
    reader.at = head_length
    try:
        return Message(
            kind=Kind(kind),
            serial=serial,
            path=_text(fields, _Field.PATH),
            interface=_text(fields, _Field.INTERFACE),
            member=_text(fields, _Field.MEMBER),
            error_name=_text(fields, _Field.ERROR_NAME),
            reply_serial=int(fields.get(_Field.REPLY_SERIAL, 0)),
            destination=_text(fields, _Field.DESTINATION),
            sender=_text(fields, _Field.SENDER),
            signature=str(signature),
            body=tuple(reader.take(str(signature))),
        )
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"not a message: {error}") from None


def _text(fields: dict[int, Any], number: _Field) -> str:
    value = fields.get(number, "")
    if not isinstance(value, str):
        raise ProtocolError(f"field {number} is no text")
    return value


def split(signature: str) -> Iterator[str]:
    """The single complete types of a signature.

    Raises:
        ProtocolError: it is none.
    """
    at = 0
    while at < len(signature):
        end = _end_of_type(signature, at, 0)
        yield signature[at:end]
        at = end


def _end_of_type(signature: str, at: int, depth: int) -> int:
    code = signature[at : at + 1]
    if depth > _DEEPEST:
        raise ProtocolError("types within types without an end")
    if code in _FIXED or code in ("s", "o", "g", "v"):
        return at + 1
    if code == "a":
        return _end_of_type(signature, at + 1, depth + 1)
    if code in ("(", "{"):
        closing = ")" if code == "(" else "}"
        at += 1
        if signature[at : at + 1] == closing:
            raise ProtocolError("a struct of nothing: an array of them would have no end")
        while signature[at : at + 1] != closing:
            at = _end_of_type(signature, at, depth + 1)
        return at + 1
    raise ProtocolError(f"not a type: {signature!r}")


def _alignment(signature: str) -> int:
    code = signature[0]
    return _FIXED[code].size if code in _FIXED else _ALIGNED[code]


class _Writer:
    """Values as bytes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, to: int) -> None:
        self.data += bytes(-len(self.data) % to)

    def put(self, signature: str, value: Any) -> None:
        self.align(_alignment(signature))
        match signature[0]:
            case code if code in _FIXED:
                self.data += _FIXED[code].pack(value)
            case "s" | "o":
                text = value.encode()
                self.data += struct.pack("<I", len(text)) + text + b"\0"
            case "g":
                text = value.encode("ascii")
                self.data += bytes((len(text),)) + text + b"\0"
            case "v":
                self.put("g", value.signature)
                self.put(value.signature, value.value)
            case "a":
                self._put_array(signature[1:], value)
            case _:
                for one, part in zip(split(signature[1:-1]), value, strict=True):
                    self.put(one, part)

    def _put_array(self, signature: str, value: Any) -> None:
        at = len(self.data)
        self.data += bytes(4)
        self.align(_alignment(signature))
        begin = len(self.data)
        for one in value.items() if signature[0] == "{" else value:
            self.put(signature, one)
        struct.pack_into("<I", self.data, at, len(self.data) - begin)


class _Reader:
    """Bytes as values. Every mistake is a ProtocolError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._depth = 0
        self.at = 0

    def take(self, signature: str) -> list[Any]:
        return [self._one(each) for each in split(signature)]

    def _one(self, signature: str) -> Any:
        self.at += -self.at % _alignment(signature)
        match signature[0]:
            case code if code in _FIXED:
                packed = self._bytes(_FIXED[code].size)
                (value,) = _FIXED[code].unpack(packed)
                return bool(value) if code == "b" else value
            case "s" | "o":
                return self._characters(self._one("u"))
            case "g":
                return self._characters(self._one("y"))
            case "v":
                return self._variant()
            case "a":
                return self._array(signature[1:])
            case _:
                return tuple(self.take(signature[1:-1]))

    def _variant(self) -> Variant:
        signature = self._one("g")
        if len(list(itertools.islice(split(signature), 2))) != 1:
            raise ProtocolError("a variant of not one type")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ProtocolError("variants within variants without an end")
        value = self._one(signature)
        self._depth -= 1
        return Variant(signature, value)

    def _array(self, signature: str) -> Any:
        length = self._one("u")
        self.at += -self.at % _alignment(signature)
        end = self.at + length
        if end > len(self._data):
            raise ProtocolError("an array that breaks off")
        if signature == "y":
            return self._bytes(length)
        found = []
        while self.at < end:
            found.append(self._one(signature))
        if self.at != end:
            raise ProtocolError("an array that ends within a value")
        if signature[0] != "{":
            return found
        try:
            return dict(found)
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"not a dictionary: {error}") from None

    def _characters(self, length: int) -> str:
        text = self._bytes(length + 1)[:-1]
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise ProtocolError("text that is not UTF-8") from None

    def _bytes(self, length: int) -> bytes:
        taken = self._data[self.at : self.at + length]
        if len(taken) != length:
            raise ProtocolError("a message that breaks off")
        self.at += length
        return taken


def authentication(uid: int) -> bytes:
    """What a client says first; the answer is one line that begins with OK."""
    return b"\0AUTH EXTERNAL " + str(uid).encode().hex().encode() + b"\r\nBEGIN\r\n"


def socket_of(address: str) -> str:
    """The Unix socket of a bus's address; an abstract one begins with NUL.

    Raises:
        ProtocolError: it has none.
    """
    for one in address.split(";"):
        transport, _, fields = one.partition(":")
        pairs = dict(pair.partition("=")[::2] for pair in fields.split(","))
        if transport == "unix" and "path" in pairs:
            return _unescaped(pairs["path"])
        if transport == "unix" and "abstract" in pairs:
            return "\0" + _unescaped(pairs["abstract"])
    raise ProtocolError(f"no address of a bus that can be reached: {address!r}")


def _unescaped(text: str) -> str:
    from urllib.parse import unquote  # noqa: PLC0415 - addresses are read once

    return unquote(text)
