"""Asking the keeper, from the daemon's event loop."""

import array
import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from insula.keeper.address import address
from insula.keeper.requirements import JailError, Requirements, assert_jailed, described
from insula.protocol import keeper as wire
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.keeper import Facts, JailSpec

__all__ = [
    "JailError",
    "KeeperClient",
    "KeeperError",
    "Listed",
    "Requirements",
    "Spawned",
    "assert_jailed",
    "described",
    "start_keeper",
]

CALL_TIMEOUT = 20.0
_ANCILLARY = socket.CMSG_SPACE(4 * array.array("i").itemsize)


class KeeperError(ReportableError):
    """The keeper refused or did not answer."""


class KeeperSilentError(KeeperError):
    """Whether the keeper did what it was asked is not known."""


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


_Answer = tuple[dict[str, Any], list[int]]


class KeeperClient:
    """A connection to the keeper; calls may be made at the same time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._number = 0
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._sending = asyncio.Lock()
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
                with address(path) as where:
                    await asyncio.get_running_loop().sock_connect(connection, where)
        except (OSError, TimeoutError) as error:
            connection.close()
            raise KeeperError(f"the keeper does not answer at {path}: {error}") from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def hello(self) -> dict[str, Any]:
        """The keeper's version and pid."""
        return (await self._call("hello"))[0]

    async def spawn(self, name: str, jail: JailSpec, given: Sequence[int]) -> Spawned:
        """Start a program in a jail; returns when it runs there.

        given are the descriptors for the jail's numbers; they stay the caller's. A start that the
        caller does not wait for to its end is undone.

        Raises:
            KeeperError: it did not start; nothing of it is left.
        """
        try:
            fields, descriptors = await self._call("spawn", given, name=name, jail=jail.to_json())
            return Spawned(fields["pid"], fields["start_time"], _only(descriptors))
        except (asyncio.CancelledError, KeeperSilentError):
            self._number += 1
            with suppress(OSError):
                self._socket.send(wire.encode({"id": self._number, "op": "kill", "name": name}))
            raise

    async def verify(self, name: str) -> Facts:
        """What holds of a process in its jail.

        Raises:
            KeyError: no process of that name runs.
        """
        return Facts.from_json((await self._call("verify", name=name))[0]["facts"])

    async def kill(self, name: str) -> None:
        """End a process, both layers of it.

        Raises:
            KeyError: there is no such process.
        """
        await self._call("kill", name=name)

    async def list(self) -> dict[str, Listed]:
        """Every process that is not forgotten."""
        found: dict[str, Listed] = {}
        more = True
        while more:
            page = (await self._call("list", after=max(found, default="")))[0]
            for name, one in page["processes"].items():
                found[name] = Listed(one["pid"], one["start_time"], one["exit"])
            more = page["more"]
        return found

    async def forget(self, name: str) -> None:
        """Drop a process that has ended.

        Raises:
            KeyError: there is no such process. KeeperError: it runs.
        """
        await self._call("forget", name=name)

    async def hold(self, name: str, descriptor: int) -> None:
        """Have the keeper hold a duplicate of a descriptor under a name."""
        await self._call("hold", [descriptor], name=name)

    async def take(self, name: str) -> int:
        """A duplicate of a held descriptor.

        Raises:
            KeyError: nothing is held under that name.
        """
        _, descriptors = await self._call("take", name=name)
        return _only(descriptors)

    async def drop(self, name: str) -> None:
        """Have the keeper close what it holds under a name.

        Raises:
            KeyError: nothing is held under that name.
        """
        await self._call("drop", name=name)

    async def names(self, prefix: str) -> Sequence[str]:
        """Names of held descriptors."""
        found: list[str] = []
        more = True
        while more:
            page = (await self._call("names", prefix=prefix, after=max(found, default="")))[0]
            found += page["names"]
            more = page["more"]
        return found

    async def log(self, name: str) -> str:
        """The end of what a process wrote.

        Raises:
            KeyError: there is no such process.
        """
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

    async def _call(self, op: str, given: Sequence[int] = (), **fields: Any) -> _Answer:
        self._number += 1
        number = self._number
        record = wire.encode({"id": number, "op": op, **fields})
        waiting: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        taken = False
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await self._send(record, given)
                got, descriptors = await waiting
                taken = True
        except OSError as error:  # TimeoutError is one.
            raise KeeperSilentError(f"keeper: {op}: {error or 'no answer'}") from error
        finally:
            del self._waiting[number]
            if not taken:
                _discard(waiting)
        if got.get("ok"):
            return got, descriptors
        if got.get("missing"):
            raise KeyError(str(got.get("error")))
        raise KeeperError(f"keeper: {op}: {got.get('error')}")

    async def _send(self, record: bytes, given: Sequence[int]) -> None:
        ancillary = []
        if given:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))]
        async with self._sending:
            while True:
                try:
                    self._socket.sendmsg([record], ancillary, socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    await _writable(self._socket)
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
                descriptors.frombytes(content[: len(content) - len(content) % 4])
        if not record:
            self._lose()
            self.on_lost()
            return
        waiting = None
        with suppress(ProtocolError, KeyError, TypeError):
            fields = wire.decode(record)
            if fields.get("event") == "exit":
                self.on_exit(fields["name"], fields["status"])
            else:
                waiting = self._waiting.get(fields["id"])
        if waiting is not None and not waiting.done():
            waiting.set_result((fields, list(descriptors)))
        else:
            for descriptor in descriptors:
                os.close(descriptor)

    def _lose(self) -> None:
        if self._socket.fileno() >= 0:
            with suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._socket)
                asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the keeper is gone"))


def start_keeper(listening: Path, log: Path, *, timeout: float = CALL_TIMEOUT) -> None:
    """Have a keeper listen; returns when one does, in the background, be it ours or another's.

    Raises:
        KeeperError: none does within timeout seconds.
    """
    argv = [sys.executable, "-m", "insula.keeper", "--socket", str(listening)]
    try:
        subprocess.run(
            [*argv, "--background", str(log)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise KeeperError(f"the keeper did not start within {timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise KeeperError(f"the keeper did not start: {said}") from error


def _only(descriptors: Sequence[int]) -> int:
    if len(descriptors) != 1:
        raise KeeperSilentError("the keeper's answer lost its descriptor")
    return descriptors[0]


def _discard(waiting: asyncio.Future[_Answer]) -> None:
    """Close what came with an answer that nobody takes any more."""
    if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
        for descriptor in waiting.result()[1]:
            os.close(descriptor)
    waiting.cancel()


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        loop.remove_writer(connection)
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(connection, wake)
    try:
        await ready
    finally:
        if connection.fileno() >= 0:
            loop.remove_writer(connection)
