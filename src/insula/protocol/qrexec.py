"""qrexec's messages: control channel, daemon socket, agent socket and data channel.

Source of the format: qrexec-wire.md sections 2, 3 and 7. Integers are little endian.
"""

import enum
import struct
from typing import NamedTuple

from insula.protocol.errors import ProtocolError
from insula.protocol.frames import RawFrame, frame, take_raw_frame

VERSION = 4
LOWEST_VERSION = 2
MAX_CHUNK_V2 = 4096
MAX_CHUNK = 65_536
MAX_SERVICE = 65_000  # bytes, with argument and the NUL
MAX_COMMAND = 65_535  # bytes, with the eight of the parameters and the NUL
AGENT_SOCKET = "/run/qubes/qrexec-agent"
EXIT_QREXEC_FAILED = 125
EXIT_REFUSED = 126
EXIT_NOT_FOUND = 127
EXIT_LOST = 255


class MessageType(enum.IntEnum):
    """First header field. A number never gets a second meaning."""

    DATA_STDIN = 0x190
    DATA_STDOUT = 0x191
    DATA_STDERR = 0x192
    DATA_EXIT_CODE = 0x193
    EXEC_CMDLINE = 0x200
    JUST_EXEC = 0x201
    SERVICE_CONNECT = 0x202
    SERVICE_REFUSED = 0x203
    TRIGGER_SERVICE = 0x210
    CONNECTION_TERMINATED = 0x211
    TRIGGER_SERVICE3 = 0x212
    TRIGGER_SERVICE4 = 0x213
    HELLO = 0x300


_DATA_TYPES = frozenset(
    (
        MessageType.DATA_STDIN,
        MessageType.DATA_STDOUT,
        MessageType.DATA_STDERR,
        MessageType.DATA_EXIT_CODE,
    )
)
_PARAMETERS = struct.Struct("<II")
_VERSION = struct.Struct("<I")
_EXIT_CODE = struct.Struct("<i")
_TRIGGER2 = struct.Struct("<64s32s32s")
_TRIGGER3 = struct.Struct("<64s32s")
_TRIGGER4 = struct.Struct("<64s64s32s")
_TRIGGER_LENGTHS: dict[int, range] = {
    MessageType.TRIGGER_SERVICE: range(_TRIGGER2.size, _TRIGGER2.size + 1),
    MessageType.TRIGGER_SERVICE3: range(_TRIGGER3.size + 1, _TRIGGER3.size + MAX_SERVICE + 1),
    MessageType.TRIGGER_SERVICE4: range(_TRIGGER4.size + 1, _TRIGGER4.size + MAX_SERVICE + 1),
}
_TRIGGERS = {
    2: (MessageType.TRIGGER_SERVICE,),
    3: (MessageType.TRIGGER_SERVICE3,),
    4: (MessageType.TRIGGER_SERVICE3, MessageType.TRIGGER_SERVICE4),
}
MAX_TRIGGER = _TRIGGER4.size + MAX_SERVICE


class ExecParameters(NamedTuple):
    """The other end's domain number, the data port (0: allocate one), and a text or none."""

    domain: int
    port: int
    text: str | None = None

    def encode(self) -> bytes:
        """The body; the text ends in a NUL."""
        body = _PARAMETERS.pack(self.domain, self.port)
        if self.text is None:
            return body
        text = self.text.encode("utf-8", "surrogateescape")
        if b"\0" in text:
            raise ProtocolError("a command has no NUL")
        body += text + b"\0"
        if len(body) > MAX_COMMAND:
            raise ProtocolError(f"a command of {len(text)} bytes is too long")
        return body

    @classmethod
    def decode(cls, body: bytes) -> "ExecParameters":
        """Read a body; the last byte of a text is taken as its NUL, as the agent does."""
        if len(body) < _PARAMETERS.size:
            raise ProtocolError(f"exec parameters of {len(body)} bytes")
        domain, port = _PARAMETERS.unpack_from(body)
        text = body[_PARAMETERS.size :]
        if not text:
            return cls(domain, port)
        return cls(domain, port, text[:-1].partition(b"\0")[0].decode("utf-8", "surrogateescape"))


def hello(version: int = VERSION) -> bytes:
    """A HELLO message."""
    return frame(MessageType.HELLO, _VERSION.pack(version))


def session_version(raw: RawFrame, own: int = VERSION) -> int:
    """The version both ends speak, from the peer's HELLO.

    Raises:
        ProtocolError: it is no HELLO, or names a version that is too old.
    """
    version = min(read_hello(raw), own)
    if version < LOWEST_VERSION:
        raise ProtocolError(f"version {version} is too old")
    return version


def check_hello(untrusted_type: int, untrusted_length: int) -> None:
    """Look at the header of what should be a HELLO.

    Raises:
        ProtocolError: it is none.
    """
    if untrusted_type != MessageType.HELLO or untrusted_length != _VERSION.size:
        raise ProtocolError("no HELLO")


def read_hello(raw: RawFrame) -> int:
    """The version that a HELLO names.

    Raises:
        ProtocolError: it is no HELLO.
    """
    check_hello(raw.type, len(raw.body))
    return int(_VERSION.unpack(raw.body)[0])


def chunk_limit(version: int) -> int:
    """The largest body of a data message in a session."""
    return MAX_CHUNK if version > LOWEST_VERSION else MAX_CHUNK_V2


def take_data(received: bytearray, limit: int) -> tuple[MessageType, bytes] | None:
    """Remove the first whole message of a data channel; None while bytes are missing.

    Raises:
        ProtocolError: its body is over the limit, or its type is none of a data channel.
    """
    raw = take_raw_frame(received, limit)
    if raw is None:
        return None
    if raw.type not in _DATA_TYPES:
        raise ProtocolError(f"unknown type {raw.type:#x} on a data channel")
    return MessageType(raw.type), raw.body


def exit_code(code: int) -> bytes:
    """A DATA_EXIT_CODE message."""
    return frame(MessageType.DATA_EXIT_CODE, _EXIT_CODE.pack(code))


def read_exit_code(body: bytes) -> int:
    """The code of a DATA_EXIT_CODE body; a short one counts as lost, a long one is cut."""
    if len(body) < _EXIT_CODE.size:
        return EXIT_LOST
    code: int = _EXIT_CODE.unpack_from(body)[0]
    return code


def check_from_agent(version: int, untrusted_type: int, untrusted_length: int) -> None:
    """Look at the header of what an agent sends in a session of a version.

    Raises:
        ProtocolError: agents of that version send nothing of that type, or of that length.
    """
    if untrusted_type == MessageType.CONNECTION_TERMINATED:
        if untrusted_length != _PARAMETERS.size:
            raise ProtocolError(f"an end of no connection, {untrusted_length} bytes")
        return
    if untrusted_type not in _TRIGGERS[version]:
        raise ProtocolError(f"unexpected type {untrusted_type:#x}")
    check_trigger(untrusted_type, untrusted_length)


def check_trigger(untrusted_type: int, untrusted_length: int) -> None:
    """Look at the header of a request for a call.

    Raises:
        ProtocolError: it is none, or has a length that none has.
    """
    if untrusted_length not in _TRIGGER_LENGTHS.get(untrusted_type, range(0)):
        raise ProtocolError(f"no request: type {untrusted_type:#x}, {untrusted_length} bytes")


class Trigger(NamedTuple):
    """A call that a qube asks for; source is empty for an ordinary one."""

    target: str
    request_id: bytes
    service: str
    source: str = ""

    def encode(self) -> bytes:
        """The whole message, TRIGGER_SERVICE4."""
        source, target, service = (
            text.encode("utf-8", "surrogateescape")
            for text in (self.source, self.target, self.service)
        )
        head = _TRIGGER4.pack(source[:63], target[:63], self.request_id)
        return frame(MessageType.TRIGGER_SERVICE4, head + service + b"\0")

    @classmethod
    def decode(cls, message_type: MessageType, untrusted: bytes) -> "Trigger":
        """Read and sanitise a qube's message (section 10.1).

        Raises:
            TriggerError: what it asks for is to be refused.
            ProtocolError: its length is not acceptable.
        """
        check_trigger(message_type, len(untrusted))
        if message_type is MessageType.TRIGGER_SERVICE:
            return _decode_oldest(untrusted)
        head = _TRIGGER4 if message_type is MessageType.TRIGGER_SERVICE4 else _TRIGGER3
        *untrusted_source, untrusted_target, untrusted_id = head.unpack_from(untrusted)
        if not _is_request_id(untrusted_id):
            raise TriggerError("no request id", untrusted_id)
        return cls(
            target=sanitise_target(untrusted_target),
            request_id=untrusted_id,
            service=_service(untrusted[head.size :], untrusted_id),
            source=sanitise_target(untrusted_source[0]) if untrusted_source else "",
        )


def _decode_oldest(untrusted: bytes) -> Trigger:
    """A TRIGGER_SERVICE, whose service is in a field of fixed size."""
    service, target, untrusted_id = _TRIGGER2.unpack(untrusted)
    if not _is_request_id(untrusted_id):
        raise TriggerError("no request id", untrusted_id)
    name = service[:-1].partition(b"\0")[0].translate(_SERVICE_TABLE)
    return Trigger(sanitise_target(target), untrusted_id, _service(name + b"\0", untrusted_id))


class TriggerError(Exception):
    """A call that no policy need be asked about. untrusted_id: its request id, as it came."""

    def __init__(self, text: str, untrusted_id: bytes) -> None:
        super().__init__(text)
        self.untrusted_id = untrusted_id


def _service(untrusted: bytes, request_id: bytes) -> str:
    if not untrusted.endswith(b"\0") or b"\0" in untrusted[:-1]:
        raise TriggerError("a service's name ends in its only NUL", request_id)
    name = untrusted[:-1]
    if not name or name.startswith(b"+"):
        raise TriggerError("a service has a name", request_id)
    return name.translate(_SERVICE_TABLE).decode("ascii")


_LETTERS = bytes((*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B)))


def _replaced(good: bytes) -> bytes:
    """A table by which every other byte becomes an underscore; re would take long to load."""
    return bytes(byte if byte in good else ord("_") for byte in range(256))


_SERVICE_TABLE = _replaced(_LETTERS + b"_.+-")
_TARGET_TABLE = _replaced(_LETTERS + b"_.@:-")
_REQUEST_ID_BYTES = _LETTERS + b"_. -"


def sanitise_target(untrusted: bytes) -> str:
    """A source or target field: cut at its NUL, other bytes replaced."""
    return untrusted[:-1].partition(b"\0")[0].translate(_TARGET_TABLE).decode("ascii")


def _is_request_id(untrusted: bytes) -> bool:
    """Whether a field has bytes of a request id, then at least one NUL and nothing else."""
    text, nul, rest = untrusted.partition(b"\0")
    return bool(nul) and not text.translate(None, _REQUEST_ID_BYTES) and not rest.strip(b"\0")
