"""Requests and answers of the Admin API, and the lines that both sides read and write in them.

Source of the formats: admin-api.md sections 1.2, 1.4, 3.2 and 4.1. Values are named tuples, not
data classes: every command imports this module, and `dataclasses` costs it milliseconds.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

MAX_REQUEST = 65_536  # bytes, header and payload
MAX_EVENT = 1_048_576  # bytes a client holds before one whole event has come
ADMIN_QUBE = "dom0"
PROPERTY_TYPES = frozenset(("str", "int", "bool", "vm", "label"))
_OK, _EVENT, _EXCEPTION = b"0\0", b"1\0", b"2\0"


class AdminRequest(NamedTuple):
    """The header of a request. No argument and an empty one are the same."""

    method: str
    argument: str
    source: str
    destination: str


class Refusal(NamedTuple):
    """An exception in an answer: the name of its class, and the text for the person."""

    kind: str
    message: str


class Event(NamedTuple):
    """One record of a stream. subject: a qube's name, empty for the system."""

    subject: str
    name: str
    fields: dict[str, str]


class PropertyAnswer(NamedTuple):
    """A property as Get answers it; value is its text, empty when there is none."""

    is_default: bool
    type: str
    value: str


class ListedQube(NamedTuple):
    """A line of admin.vm.List."""

    name: str
    klass: str
    state: str
    uuid: str


def encode_request(
    method: str, argument: str, destination: str, payload: bytes = b"", *, source: str = ADMIN_QUBE
) -> bytes:
    """A whole request.

    Raises:
        ProtocolError: a field cannot be part of a header, or the request is over MAX_REQUEST.
    """
    for field in (method, argument, source, destination):
        if "\0" in field or " " in field or not field.isascii():
            raise ProtocolError(f"not for a request's header: {field!r}")
    header = f"{method}+{argument} {source} name {destination}\0".encode("ascii")
    if len(header) + len(payload) > MAX_REQUEST:
        raise ProtocolError(f"a request has at most {MAX_REQUEST} bytes")
    return header + payload


def split_request(received: bytes) -> tuple[AdminRequest, bytes]:
    """Header and payload of a whole request, as it came up to its end of file.

    Raises:
        ProtocolError: it is over MAX_REQUEST bytes, or its header is not as it should be.
    """
    if len(received) > MAX_REQUEST:
        raise ProtocolError(f"a request has at most {MAX_REQUEST} bytes")
    header, end, payload = received.partition(b"\0")
    if not end:
        raise ProtocolError("a request's header ends in a NUL")
    return parse_request(header), payload


def parse_request(header: bytes) -> AdminRequest:
    """Read a header, without its NUL. Names are not looked at.

    Raises:
        ProtocolError: it has too few fields, another type of destination, or is not ASCII.
    """
    try:
        fields = header.decode("ascii").split(" ", 3)
    except UnicodeDecodeError:
        raise ProtocolError("a request's header is ASCII") from None
    match fields:
        case [call, source, "name", destination]:
            pass
        case [call, source, "keyword", "adminvm"]:
            destination = ADMIN_QUBE
        case _:
            raise ProtocolError(f"not a request's header: {header!r}")
    method, _, argument = call.partition("+")
    return AdminRequest(method, argument, source, destination)


def ok(content: str | bytes = b"") -> bytes:
    """An OK answer."""
    return _OK + (content.encode() if isinstance(content, str) else content)


def exception(kind: str, message: str) -> bytes:
    """An EXCEPTION answer. A client formats the message with `%`, so that each is doubled."""
    text = message.replace("%", "%%").replace("\0", "")
    return _EXCEPTION + f"{kind}\0\0{text}\0".encode()


def event(subject: str, name: str, fields: Mapping[str, str] | None = None) -> bytes:
    """One record of a stream.

    Raises:
        ProtocolError: a field has a character that records cannot carry, or a key is empty.
    """
    parts = [subject, name]
    for key, value in (fields or {}).items():
        if not key:
            raise ProtocolError("a key of an event is not empty")
        parts += (key, value)
    if any("\0" in part or not part.isascii() for part in parts):
        raise ProtocolError(f"not for an event: {parts!r}")
    return _EVENT + "".join(f"{part}\0" for part in parts).encode("ascii") + b"\0"


def decode_answer(received: bytes) -> bytes | Refusal | None:
    """A whole answer that is no stream: its content, a refusal, or None when nothing came.

    Raises:
        ProtocolError: it is no answer.
    """
    if not received:
        return None
    match received[:2]:
        case b"0\0":
            return received[2:]
        case b"2\0":
            return _refusal(received[2:].split(b"\0"))
    raise ProtocolError(f"not an answer: {received[:40]!r}")


def take_event(received: bytearray) -> Event | Refusal | None:
    """Remove the first whole record of a stream; None while bytes are missing.

    A refusal ends the stream; it is returned once all its bytes up to the message's end are there.

    Raises:
        ProtocolError: no record begins there, or one is over MAX_EVENT bytes.
    """
    if len(received) < 2:
        return None
    kind = bytes(received[:2])
    if kind not in (_EVENT, _EXCEPTION):
        raise ProtocolError(f"not a record: {bytes(received[:40])!r}")
    fields, end = _event_fields(received) if kind == _EVENT else _terminated(received, 3)
    if fields is None:
        if len(received) > MAX_EVENT:
            raise ProtocolError(f"a record is over {MAX_EVENT} bytes")
        return None
    del received[:end]
    if kind == _EXCEPTION:
        return _refusal([*fields, b""])
    subject, name, *rest = (field.decode("utf-8", "replace") for field in fields)
    return Event(subject, name, dict(zip(rest[::2], rest[1::2], strict=True)))


def property_answer(answer: PropertyAnswer) -> str:
    """What Get answers."""
    return f"default={answer.is_default} type={answer.type} {answer.value}"


def parse_property_answer(text: str) -> PropertyAnswer:
    """Read what Get answers.

    Raises:
        ProtocolError: it is no such answer.
    """
    match text.split(" ", 2):
        case [("default=True" | "default=False") as default, kind, value]:
            return PropertyAnswer(default == "default=True", _property_type(kind), value)
    raise ProtocolError(f"not a property's answer: {text[:80]!r}")


def default_answer(kind: str, value: str) -> str:
    """What GetDefault answers for a property that has a default."""
    return f"type={kind} {value}"


def parse_default_answer(text: str) -> PropertyAnswer | None:
    """Read what GetDefault answers; None when there is no default.

    Raises:
        ProtocolError: it is no such answer.
    """
    if not text:
        return None
    kind, space, value = text.partition(" ")
    if not space:
        raise ProtocolError(f"not a default's answer: {text[:80]!r}")
    return PropertyAnswer(True, _property_type(kind), value)


def property_lines(answers: Iterable[tuple[str, PropertyAnswer]]) -> str:
    """What GetAll answers."""
    return "".join(
        f"{name} {property_answer(answer)}".replace("\\", "\\\\").replace("\n", "\\n") + "\n"
        for name, answer in answers
    )


def parse_property_lines(text: str) -> dict[str, PropertyAnswer]:
    """Read what GetAll answers.

    Raises:
        ProtocolError: a line is not as it should be.
    """
    found = {}
    for line in _lines(text):
        name, _, answer = line.partition(" ")
        found[name] = parse_property_answer(_unescape(answer))
    return found


def listed_qube_line(qube: ListedQube) -> str:
    """A line of admin.vm.List."""
    return f"{qube.name} class={qube.klass} state={qube.state} uuid={qube.uuid}\n"


def parse_listed_qubes(text: str) -> list[ListedQube]:
    """Read what admin.vm.List answers; fields that a later server adds are passed over.

    Raises:
        ProtocolError: a line lacks a field.
    """
    found = []
    for line in _lines(text):
        name, _, rest = line.partition(" ")
        fields = dict(word.partition("=")[::2] for word in rest.split(" "))
        try:
            found.append(ListedQube(name, fields["class"], fields["state"], fields["uuid"]))
        except KeyError as error:
            raise ProtocolError(f"a qube without {error}: {line[:80]!r}") from None
    return found


def parse_pairs(text: str, separator: str = "\n") -> dict[str, str]:
    """Read `key=value` items: volume and pool information, a qube's current state."""
    items = (item.partition("=") for item in text.split(separator))
    return {key: value for key, equals, value in items if equals}


def _lines(text: str) -> list[str]:
    """The lines of a list, each of which ends in a line feed."""
    return (
        text.split("\n")[:-1]
        if text.endswith("\n")
        else [line for line in text.split("\n") if line]
    )


def _property_type(field: str) -> str:
    name, _, kind = field.partition("=")
    if name != "type" or kind not in PROPERTY_TYPES:
        raise ProtocolError(f"not a property's type: {field[:80]!r}")
    return kind


def _unescape(text: str) -> str:
    parts = (part.replace("\\n", "\n") for part in text.split("\\\\"))
    return "\\".join(parts)


def _refusal(fields: list[bytes]) -> Refusal:
    """Kind, traceback, message and what is to be put into the message; the last is empty."""
    if len(fields) < 4:
        raise ProtocolError("an exception has a type, a traceback and a message")
    kind, _, message, *values = (field.decode("utf-8", "replace") for field in fields[:-1])
    if not values:
        return Refusal(kind, message.replace("%%", "%"))
    try:
        return Refusal(kind, message % tuple(values))
    except (TypeError, ValueError):
        return Refusal(kind, message)


def _event_fields(received: bytearray) -> tuple[list[bytes] | None, int]:
    """Fields of the event at the beginning up to the empty key, and where it ends."""
    fields: list[bytes] = []
    at = len(_EVENT)
    while True:
        end = received.find(0, at)
        if end < 0:
            return None, 0
        if end == at and len(fields) >= 2 and len(fields) % 2 == 0:
            return fields, end + 1
        fields.append(bytes(received[at:end]))
        at = end + 1


def _terminated(received: bytearray, count: int) -> tuple[list[bytes] | None, int]:
    """The first fields of a record, and where the last of them ends."""
    *fields, _ = bytes(received[2:]).split(b"\0", count)
    if len(fields) < count:
        return None, 0
    return fields, 2 + sum(len(field) + 1 for field in fields)
