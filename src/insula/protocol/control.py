"""Messages of the control port between the daemon and a qube's agent, beside qrexec's own.

One stream carries both: qrexec's control messages (qrexec-wire.md section 3, types below 0x1000)
and those here, framed alike. A session opens by the markers of `resync`; then the agent sends
AGENT_HELLO. The daemon is trusted by the guest; what the guest sends is not trusted by the daemon.
"""

import enum
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from insula.protocol.errors import ProtocolError
from insula.protocol.frames import frame
from insula.protocol.qubesdb import is_key, is_prefix, is_value
from insula.protocol.resync import NONCE_SIZE

VERSION = 1
MAX_FROM_GUEST = 65_536  # bytes of a body the daemon accepts
MAX_FROM_HOST = 1_048_576  # bytes of a body the agent accepts
SEED_SIZE = 64
MAX_SESSIONS = 256
MAX_ERROR_TEXT = 1000


class ControlType(enum.IntEnum):
    """First header field. A number never gets a second meaning."""

    AGENT_HELLO = 0x1000  # agent: version, state, open sessions
    SEED = 0x1001  # daemon: clock and entropy; nothing else runs before it is taken
    SEEDED = 0x1002  # agent: tasks outside the agent that ran before the seed was credited
    IDENTITY = 0x1003  # daemon: JSON, who the qube is
    READY = 0x1004  # agent: status and text; services answer from here
    CLOCK = 0x1005  # daemon: nanoseconds since the epoch
    ATTACH = 0x1006  # daemon: the data connection (domain, port) lies on data port index
    PARK = 0x1007  # daemon: freeze everything but the agent, for a snapshot
    PARKED = 0x1008  # agent: status and text
    SHUTDOWN = 0x1009  # daemon: end cleanly
    PROCESSORS = 0x100A  # daemon: it has further processors, to be used
    KEY = 0x100B  # both: a QubesDB key has a value now
    KEY_GONE = 0x100C  # both: one is gone, or all below a path that ends in a slash
    LINK = 0x100D  # daemon: JSON, a network card is there or comes, and what it is for
    LINKED = 0x100E  # agent: number, status and text; from here packets may pass
    UNLINK = 0x100F  # daemon: number; the card is to be taken down, and goes then
    UNLINKED = 0x1010  # agent: number, status and text


class AgentState(enum.IntEnum):
    """How far an agent is."""

    WAITING = 0  # booted, without identity
    PARKED = 1
    STARTING = 2  # has an identity, not ready yet
    READY = 3
    FAILED = 4


_SESSION = struct.Struct("<III")
_HELLO = struct.Struct("<III")
_ATTACH = struct.Struct(f"<III{NONCE_SIZE}s")
_CLOCK = struct.Struct("<Q")
_STATUS = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Session:
    """An open data connection: the other end's domain number, the qrexec port, the data port."""

    domain: int
    port: int
    index: int


@dataclass(frozen=True, slots=True)
class AgentHello:
    """First message of an agent in a session."""

    version: int
    state: AgentState
    sessions: tuple[Session, ...] = ()

    def encode(self) -> bytes:
        body = _HELLO.pack(self.version, self.state, len(self.sessions))
        for one in self.sessions:
            body += _SESSION.pack(one.domain, one.port, one.index)
        return frame(ControlType.AGENT_HELLO, body)

    @classmethod
    def decode(cls, untrusted: bytes) -> "AgentHello":
        if len(untrusted) < _HELLO.size:
            raise ProtocolError(f"agent hello of {len(untrusted)} bytes")
        version, untrusted_state, count = _HELLO.unpack_from(untrusted)
        if count > MAX_SESSIONS or len(untrusted) != _HELLO.size + count * _SESSION.size:
            raise ProtocolError(f"agent hello of {len(untrusted)} bytes for {count} sessions")
        try:
            state = AgentState(untrusted_state)
        except ValueError:
            raise ProtocolError(f"unknown agent state {untrusted_state}") from None
        sessions = tuple(
            Session(*_SESSION.unpack_from(untrusted, _HELLO.size + k * _SESSION.size))
            for k in range(count)
        )
        return cls(version, state, sessions)


@dataclass(frozen=True, slots=True)
class Seed:
    """The wall clock in nanoseconds since the epoch and SEED_SIZE random bytes."""

    clock: int
    entropy: bytes

    def encode(self) -> bytes:
        if len(self.entropy) != SEED_SIZE:
            raise ValueError(f"a seed has {SEED_SIZE} bytes, not {len(self.entropy)}")
        return frame(ControlType.SEED, _CLOCK.pack(self.clock) + self.entropy)

    @classmethod
    def decode(cls, body: bytes) -> "Seed":
        if len(body) != _CLOCK.size + SEED_SIZE:
            raise ProtocolError(f"seed of {len(body)} bytes")
        (clock,) = _CLOCK.unpack_from(body)
        return cls(clock, body[_CLOCK.size :])


@dataclass(frozen=True, slots=True)
class Seeded:
    """How many processes besides the agent and kernel threads could have run before the seed."""

    others: int

    def encode(self) -> bytes:
        return frame(ControlType.SEEDED, _STATUS.pack(self.others))

    @classmethod
    def decode(cls, untrusted: bytes) -> "Seeded":
        if len(untrusted) != _STATUS.size:
            raise ProtocolError(f"seeded of {len(untrusted)} bytes")
        return cls(_STATUS.unpack(untrusted)[0])


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a qube is: its QubesDB as the daemon writes it at start (in-qube.md section 1.3).

    sizes: bytes of its volumes, by name, as a clone's kernel will find them once it looked.
    """

    qubesdb: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        fields = {"qubesdb": self.qubesdb, "sizes": self.sizes}
        return frame(ControlType.IDENTITY, json.dumps(fields).encode("ascii"))

    @classmethod
    def decode(cls, body: bytes) -> "Identity":
        try:
            loaded: Any = json.loads(body)
            qubesdb = {str(key): str(value) for key, value in loaded["qubesdb"].items()}
            sizes = {str(key): int(value) for key, value in loaded.get("sizes", {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"identity is not as expected: {error}") from None
        return cls(qubesdb, sizes)


@dataclass(frozen=True, slots=True)
class Status:
    """Outcome of PARK (as PARKED) or of a start (as READY): 0, or an error number and its text."""

    code: int
    text: str = ""

    def encode(self, message_type: ControlType) -> bytes:
        text = self.text.encode("utf-8", "replace")[:MAX_ERROR_TEXT]
        return frame(message_type, _STATUS.pack(self.code) + text)

    @classmethod
    def decode(cls, untrusted: bytes) -> "Status":
        if not _STATUS.size <= len(untrusted) <= _STATUS.size + MAX_ERROR_TEXT:
            raise ProtocolError(f"status of {len(untrusted)} bytes")
        (code,) = _STATUS.unpack_from(untrusted)
        return cls(code, untrusted[_STATUS.size :].decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock in nanoseconds since the epoch."""

    clock: int

    def encode(self) -> bytes:
        return frame(ControlType.CLOCK, _CLOCK.pack(self.clock))

    @classmethod
    def decode(cls, body: bytes) -> "Clock":
        if len(body) != _CLOCK.size:
            raise ProtocolError(f"clock of {len(body)} bytes")
        return cls(_CLOCK.unpack(body)[0])


@dataclass(frozen=True, slots=True)
class Attach:
    """The data connection (domain, port) lies on data port index; both ends open with nonce."""

    domain: int
    port: int
    index: int
    nonce: bytes

    def encode(self) -> bytes:
        return frame(
            ControlType.ATTACH, _ATTACH.pack(self.domain, self.port, self.index, self.nonce)
        )

    @classmethod
    def decode(cls, body: bytes) -> "Attach":
        if len(body) != _ATTACH.size:
            raise ProtocolError(f"attach of {len(body)} bytes")
        return cls(*_ATTACH.unpack(body))


@dataclass(frozen=True, slots=True)
class Key:
    """A change of QubesDB (in-qube.md section 1.1). value: None when the key is gone."""

    path: bytes
    value: bytes | None = None

    def encode(self) -> bytes:
        if self.value is None:
            return frame(ControlType.KEY_GONE, self.path)
        return frame(ControlType.KEY, self.path + b"\0" + self.value)

    @classmethod
    def decode(cls, kind: ControlType, untrusted: bytes) -> "Key":
        """Read and check one.

        Raises:
            ProtocolError: it is no key, or no value.
        """
        path, separator, value = untrusted.partition(b"\0")
        if kind is ControlType.KEY_GONE:
            if separator or not is_prefix(path):
                raise ProtocolError("no key is gone")
            return cls(path)
        if not separator or not is_key(path) or not is_value(value):
            raise ProtocolError("no key with a value")
        return cls(path, value)


def park() -> bytes:
    """Ask the agent to freeze everything but itself."""
    return frame(ControlType.PARK)


def shutdown() -> bytes:
    """Ask the agent to end the qube cleanly."""
    return frame(ControlType.SHUTDOWN)


def processors() -> bytes:
    """Tell the agent that its machine was given processors."""
    return frame(ControlType.PROCESSORS)
