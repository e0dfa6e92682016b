"""Requests to the keeper and its answers: JSON in one SOCK_SEQPACKET record, with descriptors.

A record is an object of at most MAX_RECORD bytes; descriptors travel beside it (SCM_RIGHTS), in
the order the record names them. Whoever can open the keeper's socket is trusted by it: the socket
lies in a directory of its owner's alone.

Requests carry "id" (int) and "op"; an answer repeats "id" and has "ok": true with the fields of
the operation, or "ok": false with "error" (text). An event has "event" and no "id".

| op | fields, descriptors | answer |
|---|---|---|
| hello | | version, pid |
| spawn | name, jail (see JailSpec), descriptors of the program | pid, start_time; pidfd |
| verify | name | facts of the process in its jail, see `Facts` |
| kill | name | |
| list | after: name | processes: name -> {pid, start_time, exit: int or null}; more |
| forget | name: of a process that ended | |
| watch | | then events {"event": "exit", "name", "status"} on this connection |
| hold | name, one descriptor | |
| take | name | one descriptor |
| drop | name | |
| names | prefix, after: name | names of held descriptors; more |
| log | name | text: the end of what the process wrote on stdout and stderr |
| stop | | ends the keeper when it has no process left, else error |

An answer to spawn comes when the program was seen to run in its jail, or when it failed to, or
ended before; one whose client has gone by then is ended. Lists are in the order of their names,
from the one beyond "after"; "more" says that the record had no room for all. An error has
"missing": true when nothing has the name. An exit's status is the program's exit code, 128 and a
signal's number, or negative when the jail's outer process was killed.
"""

import enum
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from insula.protocol.errors import ProtocolError

VERSION = 1
MAX_RECORD = 65_536
MAX_DESCRIPTORS = 200
MAX_NAME = 200  # characters
LOG_RING = 65_536  # bytes of output kept of each process


class JailKind(enum.StrEnum):
    """What a jail is for; the keeper holds the mounts and limits of each."""

    MACHINE = "machine"  # a QEMU: no network, no file but its binary and libraries
    VIEWER = "viewer"  # a qube's windows: the package and its interpreter, no network
    UPLINK = "uplink"  # a net qube's way out: passt alone, in the keeper's own network


class Operation(enum.StrEnum):
    """What a request asks for; see the table above."""

    HELLO = "hello"
    SPAWN = "spawn"
    VERIFY = "verify"
    KILL = "kill"
    LIST = "list"
    FORGET = "forget"
    WATCH = "watch"
    HOLD = "hold"
    TAKE = "take"
    DROP = "drop"
    NAMES = "names"
    LOG = "log"
    STOP = "stop"


_LISTS = frozenset((Operation.LIST, Operation.NAMES))
_NAMED = frozenset(Operation) - _LISTS - {Operation.HELLO, Operation.WATCH, Operation.STOP}


@dataclass(frozen=True, slots=True, kw_only=True)
class JailSpec:
    """A program to start in a jail.

    descriptors: for each descriptor sent beside the record, its number in the program.
    uid: the unprivileged user to become when the keeper runs as root, else None.
    read_only: further (path, place) pairs bound read-only.
    """

    kind: JailKind
    program: tuple[str, ...]
    descriptors: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    uid: int | None = None
    kvm: bool = False
    read_only: tuple[tuple[str, str], ...] = ()
    address_space: int | None = None  # bytes
    nice: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, untrusted: object) -> "JailSpec":
        """Read what to_json made.

        Raises:
            ProtocolError: it is anything else.
        """
        match untrusted:
            case {
                "kind": str(kind),
                "program": list(program),
                "descriptors": list(descriptors),
                "environment": dict(environment),
                "uid": uid,
                "kvm": bool(kvm),
                "read_only": list(read_only),
                "address_space": address_space,
                "nice": nice,
                **more,
            } if not more and kind in frozenset(JailKind):
                return cls(
                    kind=JailKind(kind),
                    program=tuple(map(_text, program)),
                    descriptors=tuple(_number(one, 0, 2**31 - 1) for one in descriptors),
                    environment={_text(key): _text(value) for key, value in environment.items()},
                    uid=None if uid is None else _number(uid, 0, 2**32 - 1),
                    kvm=kvm,
                    read_only=tuple(map(_pair, read_only)),
                    address_space=(
                        None if address_space is None else _number(address_space, 1, 2**63 - 1)
                    ),
                    nice=_number(nice, 0, 19),
                )
        raise ProtocolError("a jail is not as expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDescriptor:
    """A descriptor that a process in a jail has open.

    what: what /proc says it is, and its identity. inside: it was opened by a path of the jail's
    own. reopens: it may only be read, but what it is of could be opened again to be written.
    """

    number: int
    what: str
    inside: bool
    reopens: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What holds of a process in its jail, read from /proc by the keeper.

    uids, gids: every kind of them, as the keeper's user namespace sees them.
    seccomp_filters: how many system call filters are in force. bounding: capabilities that it
    could get by a program that has them, were it not for no_new_privs.
    namespaces: those it does not share with the keeper, among user mnt pid net ipc uts cgroup.
    mounts: (place, whether it can be written to) of all that is mounted in its jail.
    """

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    no_new_privs: bool
    seccomp: int
    seccomp_filters: int
    capabilities: int  # union of the effective, permitted, inheritable and ambient sets
    bounding: int
    namespaces: tuple[str, ...]
    descriptors: tuple[HeldDescriptor, ...]
    root_entries: tuple[str, ...]
    mounts: tuple[tuple[str, bool], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Facts":
        return cls(
            uids=tuple(loaded["uids"]),
            gids=tuple(loaded["gids"]),
            no_new_privs=loaded["no_new_privs"],
            seccomp=loaded["seccomp"],
            seccomp_filters=loaded["seccomp_filters"],
            capabilities=loaded["capabilities"],
            bounding=loaded["bounding"],
            namespaces=tuple(loaded["namespaces"]),
            descriptors=tuple(HeldDescriptor(**held) for held in loaded["descriptors"]),
            root_entries=tuple(loaded["root_entries"]),
            mounts=tuple((place, writable) for place, writable in loaded["mounts"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asks for. Fields that its operation does not have are empty.

    jail: of a spawn alone. after, prefix: of lists.
    """

    number: int
    operation: Operation
    name: str = ""
    jail: JailSpec | None = None
    after: str = ""
    prefix: str = ""

    @classmethod
    def decode(cls, received: bytes) -> "Request":
        """Read one record of a client.

        Raises:
            ProtocolError: it is no request.
        """
        untrusted = decode(received)
        try:
            operation = Operation(_text(untrusted.get("op")))
        except ValueError:
            raise ProtocolError("no such operation") from None
        return cls(
            number=_number(untrusted.get("id"), 0, 2**63 - 1),
            operation=operation,
            name=_name(untrusted.get("name")) if operation in _NAMED else "",
            jail=(
                JailSpec.from_json(untrusted.get("jail")) if operation is Operation.SPAWN else None
            ),
            after=_text(untrusted.get("after", "")) if operation in _LISTS else "",
            prefix=_text(untrusted.get("prefix")) if operation is Operation.NAMES else "",
        )


def encode(record: dict[str, Any]) -> bytes:
    """One record.

    Raises:
        ProtocolError: it is longer than MAX_RECORD bytes.
    """
    encoded = json.dumps(record, separators=(",", ":")).encode()
    if len(encoded) > MAX_RECORD:
        raise ProtocolError(f"record of {len(encoded)} bytes, the limit is {MAX_RECORD}")
    return encoded


def decode(received: bytes) -> dict[str, Any]:
    """The object of one record.

    Raises:
        ProtocolError: it is no JSON object.
    """
    try:
        loaded = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"record is no JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise ProtocolError("record is no JSON object")
    return loaded


def _name(untrusted: object) -> str:
    name = _text(untrusted)
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ProtocolError("no proper name")
    return name


def _text(untrusted: object) -> str:
    """A text that the kernel takes as a word."""
    if not isinstance(untrusted, str) or "\0" in untrusted:
        raise ProtocolError("no text")
    try:
        untrusted.encode()
    except UnicodeEncodeError:
        raise ProtocolError("half a character") from None
    return untrusted


def _pair(untrusted: object) -> tuple[str, str]:
    match untrusted:
        case [path, place]:
            return _text(path), _text(place)
    raise ProtocolError("no pair of paths")


def _number(untrusted: object, low: int, high: int) -> int:
    if type(untrusted) is not int or not low <= untrusted <= high:
        raise ProtocolError(f"no number from {low} to {high}")
    return untrusted
