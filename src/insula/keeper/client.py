"""Asking the keeper, from the daemon's event loop."""

import array
import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from insula.protocol import keeper as wire
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.keeper import Facts, JailSpec

CALL_TIMEOUT = 20.0
_ANCILLARY = socket.CMSG_SPACE(4 * array.array("i").itemsize)
_REQUIRED_NAMESPACES = frozenset(("user", "mnt", "pid", "net", "ipc", "uts"))
_FIRST_NUMBER = 3  # below are standard streams
# What a program opens for itself in a jail: events, timers, its own pipes and connections.
_OWN_KINDS = ("anon_inode:", "socket:", "pipe:", "/dev/urandom", "/dev/random", "/dev/null")


class KeeperError(ReportableError):
    """The keeper refused or did not answer."""


class JailError(ReportableError):
    """A process is not jailed as it has to be; it was not started, or was ended."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A started process: its pid and start time, and a pidfd that is the receiver's to close."""

    pid: int
    start_time: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A process the keeper knows; exit is None while it runs."""

    pid: int
    start_time: int
    exit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What has to hold of a process in its jail. given: what its descriptors are, as /proc says."""

    uid: int | None
    seccomp: bool
    given: frozenset[str]


def described(descriptors: Sequence[int]) -> frozenset[str]:
    """What open descriptors of ours are, as /proc says."""
    return frozenset(str(Path("/proc/self/fd", str(one)).readlink()) for one in descriptors)


class KeeperClient:
    """A connection to the keeper; calls may be made at the same time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._number = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self.on_exit: Callable[[str, int], None] = lambda _name, _status: None
        self.on_lost: Callable[[], None] = lambda: None
        asyncio.get_running_loop().add_reader(connection, self._read)

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Open a connection.

        Raises:
            KeeperError: no keeper listens at path.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await asyncio.get_running_loop().sock_connect(connection, str(path))
        except (OSError, TimeoutError) as error:
            connection.close()
            raise KeeperError(f"the keeper does not answer at {path}: {error}") from error
        return cls(connection)

    async def hello(self) -> dict[str, Any]:
        """The keeper's version and pid."""
        return (await self._call("hello"))[0]

    async def spawn(self, name: str, jail: JailSpec, given: Sequence[int]) -> Spawned:
        """Start a program in a jail; given are the descriptors for the jail's numbers."""
        fields, (pidfd,) = await self._call("spawn", given, name=name, jail=jail.to_json())
        return Spawned(fields["pid"], fields["start_time"], pidfd)

    async def verify(self, name: str) -> Facts:
        """What holds of a process in its jail."""
        return Facts.from_json((await self._call("verify", name=name))[0]["facts"])

    async def kill(self, name: str) -> None:
        """End a process, both layers of it."""
        await self._call("kill", name=name)

    async def list(self) -> dict[str, Listed]:
        """Every process that is not forgotten."""
        processes = (await self._call("list"))[0]["processes"]
        return {
            name: Listed(one["pid"], one["start_time"], one["exit"])
            for name, one in processes.items()
        }

    async def forget(self, name: str) -> None:
        """Drop a process that has ended."""
        await self._call("forget", name=name)

    async def hold(self, name: str, descriptor: int) -> None:
        """Have the keeper hold a duplicate of a descriptor under a name."""
        await self._call("hold", [descriptor], name=name)

    async def take(self, name: str) -> int:
        """A duplicate of a held descriptor.

        Raises:
            KeyError: nothing is held under that name.
        """
        _, (descriptor,) = await self._call("take", name=name)
        return descriptor

    async def drop(self, name: str) -> None:
        """Have the keeper close what it holds under a name.

        Raises:
            KeyError: nothing is held under that name.
        """
        await self._call("drop", name=name)

    async def names(self, prefix: str) -> Sequence[str]:
        """Names of held descriptors."""
        found: list[str] = (await self._call("names", prefix=prefix))[0]["names"]
        return found

    async def log(self, name: str) -> str:
        """The end of what a process wrote."""
        return str((await self._call("log", name=name))[0]["text"])

    async def watch(self) -> None:
        """Have on_exit called for every process that ends from now on."""
        await self._call("watch")

    async def stop(self) -> None:
        """End the keeper; it refuses while a process runs."""
        await self._call("stop")

    async def close(self) -> None:
        """Let go of the keeper."""
        self._lose()

    async def _call(
        self, op: str, given: Sequence[int] = (), **fields: Any
    ) -> tuple[dict[str, Any], Sequence[int]]:
        self._number += 1
        number = self._number
        record = wire.encode({"id": number, "op": op, **fields})
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await self._send(record, given)
                got, descriptors = await answer
        except (OSError, TimeoutError) as error:
            raise KeeperError(f"keeper: {op}: {error or 'no answer'}") from error
        finally:
            self._waiting.pop(number, None)
        if got.get("ok"):
            return got, descriptors
        if got.get("missing") and op in ("take", "drop", "forget", "kill", "verify", "log"):
            raise KeyError(str(got.get("error")))
        raise KeeperError(f"keeper: {op}: {got.get('error')}")

    async def _send(self, record: bytes, given: Sequence[int]) -> None:
        ancillary = []
        if given:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))]
        while True:
            try:
                self._socket.sendmsg([record], ancillary)
            except BlockingIOError:
                await asyncio.sleep(0.005)  # The keeper is busy; its queue has a few records.
            else:
                return

    def _read(self) -> None:
        try:
            record, ancillary, _, _ = self._socket.recvmsg(
                wire.MAX_RECORD, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            record, ancillary = b"", []
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content)
        if not record:
            self._lose()
            self.on_lost()
            return
        try:
            fields = wire.decode(record)
        except ProtocolError:
            return
        if fields.get("event") == "exit":
            self.on_exit(fields["name"], fields["status"])
            return
        waiting = self._waiting.get(fields.get("id", -1))
        if waiting is not None and not waiting.done():
            waiting.set_result((fields, list(descriptors)))
        else:
            for descriptor in descriptors:
                os.close(descriptor)

    def _lose(self) -> None:
        if self._socket.fileno() >= 0:
            with suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the keeper is gone"))


def assert_jailed(facts: Facts, wanted: Requirements) -> None:
    """Refuse a process whose jail is not wholly in force.

    Raises:
        JailError: names everything that does not hold.
    """
    wrong = []
    if wanted.uid is not None and facts.uid != wanted.uid:
        wrong.append(f"it runs as uid {facts.uid}, not {wanted.uid}")
    if not facts.no_new_privs:
        wrong.append("it could gain privileges")
    if wanted.seccomp and facts.seccomp != 2:
        wrong.append("no system call filter is in force")
    if facts.capabilities:
        wrong.append(f"it has capabilities {facts.capabilities:#x}")
    if missing := _REQUIRED_NAMESPACES - set(facts.namespaces):
        wrong.append(f"it shares namespaces: {', '.join(sorted(missing))}")
    for number, what in facts.descriptors:
        # By what they are, not by number: QEMU moves those of its descriptor sets.
        known = what in wanted.given or what.startswith(_OWN_KINDS)
        if number >= _FIRST_NUMBER and not known:
            wrong.append(f"it holds descriptor {number}, {what}")
    if wrong:
        raise JailError("the jail is not in force: " + "; ".join(wrong))
