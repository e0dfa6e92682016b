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

An answer to spawn comes when the program runs in its jail, or when it failed to. Lists are in the
order of their names, from the one beyond "after"; "more" says that the record had no room for all.
An error has "missing": true when nothing has the name. An exit's status is the program's exit
code, 128 and a signal's number, or negative when the jail's outer process was killed.
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
    def from_json(cls, loaded: dict[str, Any]) -> "JailSpec":
        try:
            return cls(
                kind=JailKind(loaded["kind"]),
                program=tuple(str(word) for word in loaded["program"]),
                descriptors=tuple(int(number) for number in loaded["descriptors"]),
                environment={str(k): str(v) for k, v in loaded["environment"].items()},
                uid=None if loaded["uid"] is None else int(loaded["uid"]),
                kvm=bool(loaded["kvm"]),
                read_only=tuple((str(a), str(b)) for a, b in loaded["read_only"]),
                address_space=(
                    None if loaded["address_space"] is None else int(loaded["address_space"])
                ),
                nice=int(loaded["nice"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProtocolError(f"jail is not as expected: {error}") from None


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
    seccomp_filters: how many system call filters are in force.
    namespaces: those it does not share with the keeper, among user mnt pid net ipc uts cgroup.
    mounts: (place, whether it can be written to) of all that is mounted in its jail.
    """

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    no_new_privs: bool
    seccomp: int
    seccomp_filters: int
    capabilities: int  # union of the effective, permitted, inheritable, bounding and ambient sets
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
            namespaces=tuple(loaded["namespaces"]),
            descriptors=tuple(HeldDescriptor(**held) for held in loaded["descriptors"]),
            root_entries=tuple(loaded["root_entries"]),
            mounts=tuple((place, writable) for place, writable in loaded["mounts"]),
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
