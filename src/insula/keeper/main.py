"""The keeper's loop: one thread, bounded records, no client's misbehaviour concerns another."""

import argparse
import array
import ctypes
import fcntl
import os
import resource
import selectors
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from insula.keeper.processes import Processes
from insula.keeper.spawn import SpawnError
from insula.protocol import keeper as wire
from insula.protocol.errors import ProtocolError
from insula.protocol.keeper import JailSpec

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_ANCILLARY = socket.CMSG_SPACE(wire.MAX_DESCRIPTORS * array.array("i").itemsize)
_SEND_TIMEOUT = 1.0  # seconds a client has to take an answer


class Keeper:
    """Processes, held descriptors and the clients that ask for them."""

    def __init__(self, listener: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._processes = Processes(self._selector, self._tell_exit)
        self._held: dict[str, int] = {}
        self._watchers: set[socket.socket] = set()
        self._stopping = False
        self._operations: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "hello": lambda _fields, _given: {"version": wire.VERSION, "pid": os.getpid()},
            "verify": lambda fields, _given: {"facts": self._processes.verify(fields["name"])},
            "kill": self._kill,
            "list": lambda _fields, _given: {"processes": self._processes.listing()},
            "forget": self._forget,
            "log": lambda fields, _given: {"text": self._processes.log(fields["name"])},
            "hold": self._hold,
            "drop": self._drop,
            "names": lambda fields, _given: {
                "names": [name for name in self._held if name.startswith(fields["prefix"])]
            },
            "stop": self._stop,
        }

    def run(self) -> None:
        """Serve until told to stop."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        while not self._stopping:
            for key, _ in self._selector.select():
                if key.fd in self._selector.get_map():  # An earlier event may have ended it.
                    key.data()

    def _accept(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            client.settimeout(_SEND_TIMEOUT)
            self._selector.register(client, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: socket.socket) -> None:
        given: list[int] = []
        try:
            record, given = _receive(client)
            if not record:
                self._leave(client)
                return
            self._answer(client, wire.decode(record), given)
        except (OSError, ProtocolError):
            self._leave(client)
        finally:
            for descriptor in given:
                os.close(descriptor)

    def _answer(self, client: socket.socket, fields: dict[str, Any], given: list[int]) -> None:
        sent: list[int] = []
        answer: dict[str, Any]
        try:
            match fields.get("op"):
                case "spawn":
                    spec = JailSpec.from_json(fields["jail"])
                    started, pidfd = self._processes.start(str(fields["name"]), spec, given)
                    answer, sent = started, [pidfd]
                case "take":
                    answer, sent = {}, [self._held[fields["name"]]]
                case "watch":
                    self._watchers.add(client)
                    answer = {}
                case other:
                    operation = self._operations.get(str(other))
                    if operation is None:
                        raise ProtocolError(f"no such operation: {other!r}")
                    answer = operation(fields, given)
            answer = {"id": fields.get("id"), "ok": True, **answer}
        except (KeyError, SpawnError, OSError, ValueError, TypeError) as error:
            answer = {
                "id": fields.get("id"),
                "ok": False,
                "missing": isinstance(error, KeyError),
                "error": str(error.args[0]) if error.args else repr(error),
            }
            sent = []
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sent))] if sent else []
        client.sendmsg([wire.encode(answer)], ancillary)

    def _hold(self, fields: dict[str, Any], given: list[int]) -> dict[str, Any]:
        (descriptor,) = given
        kept = os.dup(descriptor)
        previous = self._held.get(fields["name"])
        self._held[fields["name"]] = kept
        if previous is not None:
            os.close(previous)
        return {}

    def _drop(self, fields: dict[str, Any], _given: list[int]) -> dict[str, Any]:
        os.close(self._held.pop(fields["name"]))
        return {}

    def _stop(self, _fields: dict[str, Any], _given: list[int]) -> dict[str, Any]:
        if running := self._processes.running():
            raise ValueError(f"{running} processes run")
        self._stopping = True
        return {}

    def _kill(self, fields: dict[str, Any], _given: list[int]) -> dict[str, Any]:
        self._processes.kill(fields["name"])
        return {}

    def _forget(self, fields: dict[str, Any], _given: list[int]) -> dict[str, Any]:
        self._processes.forget(fields["name"])
        return {}

    def _tell_exit(self, name: str, status: int) -> None:
        event = wire.encode({"event": "exit", "name": name, "status": status})
        for watcher in tuple(self._watchers):
            try:
                watcher.send(event, socket.MSG_DONTWAIT)
            except OSError:
                self._leave(watcher)

    def _leave(self, client: socket.socket) -> None:
        self._watchers.discard(client)
        with suppress(KeyError, ValueError):
            self._selector.unregister(client)
        client.close()


def _receive(client: socket.socket) -> tuple[bytes, list[int]]:
    record, ancillary, flags, _ = client.recvmsg(
        wire.MAX_RECORD, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
    )
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    given = list(received)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in given:
            os.close(descriptor)
        raise ProtocolError("a record was cut")
    return record, given


def listen(path: Path) -> socket.socket | None:
    """The keeper's socket, for its owner alone; None when another keeper has it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(64)
    return listener


def main() -> int:
    """Serve; the lock and the socket live as long as the process."""
    parser = argparse.ArgumentParser(prog="insula-keeper", description="Hold an instance's jails.")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    path: Path = parser.parse_args().socket
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listener = listen(path)
    if listener is None:
        return 0
    Keeper(listener).run()
    path.unlink(missing_ok=True)
    return 0
