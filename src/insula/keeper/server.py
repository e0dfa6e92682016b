"""The keeper's operations; what a client does wrong concerns that client alone."""

import json
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from insula.keeper.clients import Client
from insula.keeper.loop import Loop
from insula.keeper.processes import Processes
from insula.keeper.spawn import SpawnError
from insula.protocol import keeper as wire
from insula.protocol.errors import ProtocolError
from insula.protocol.keeper import Operation, Request

MAX_CLIENTS = 64
_SPARE = 300  # descriptors that are kept free for clients and what they send
_PER_PROCESS = 4  # descriptors of the keeper's for each process
_ROOM = wire.MAX_RECORD - 1024  # bytes of a record that lists and texts may take

Fields = dict[str, Any]


class Keeper:
    """Processes, held descriptors and the clients that ask for them."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self._loop = Loop()
        self._listener = listener
        self._path = path
        self._processes = Processes(self._loop, self._tell_exit)
        self._held: dict[str, int] = {}
        self._clients: set[Client] = set()
        self._watchers: set[Client] = set()
        self._stopping = False
        self._simple: dict[Operation, Callable[[Request], Fields]] = {
            Operation.HELLO: lambda _: {"version": wire.VERSION, "pid": os.getpid()},
            Operation.VERIFY: lambda request: {"facts": self._processes.verify(request.name)},
            Operation.KILL: self._kill,
            Operation.LIST: self._list,
            Operation.FORGET: self._forget,
            Operation.LOG: lambda request: {"text": _fitting(self._processes.log(request.name))},
            Operation.DROP: self._drop,
            Operation.NAMES: self._names,
            Operation.STOP: self._stop,
        }

    def run(self) -> None:
        """Serve until told to stop."""
        self._listener.setblocking(False)
        self._loop.watch(self._listener, self._accept)
        while not self._stopping:
            self._loop.step()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        self._clients.add(Client(self._loop, connection, self._serve, self._leave))

    def _leave(self, client: Client) -> None:
        self._clients.discard(client)
        self._watchers.discard(client)

    def _serve(self, client: Client, request: Request, given: list[int]) -> None:
        answer: Fields = {}
        sent: list[int] = []
        try:
            match request.operation:
                case Operation.SPAWN:
                    self._spawn(client, request, given)
                    return
                case Operation.TAKE:
                    sent = [self._held[request.name]]
                case Operation.HOLD:
                    self._hold(request.name, given)
                case Operation.WATCH:
                    self._watchers.add(client)
                case operation:
                    answer = self._simple[operation](request)
            client.send({"id": request.number, "ok": True, **answer}, sent)
        except (KeyError, SpawnError, OSError, NotImplementedError) as error:
            _refuse(client, request.number, str(error), missing=isinstance(error, KeyError))

    def _spawn(self, client: Client, request: Request, given: list[int]) -> None:
        assert request.jail is not None
        self._require_room(_PER_PROCESS)

        def answer(started: dict[str, int] | None, pidfd: int, failure: str) -> None:
            if started is None:
                _refuse(client, request.number, _fitting(failure), missing=False)
            elif client.open:
                client.send({"id": request.number, "ok": True, **started}, [pidfd])
            else:
                self._processes.kill(request.name)  # Nobody knows of it, or looked at its jail.

        self._processes.start(request.name, request.jail, given, answer)

    def _hold(self, name: str, given: list[int]) -> None:
        if len(given) != 1:
            raise ProtocolError(f"{len(given)} descriptors to hold under one name")
        self._require_room(1)
        kept = os.dup(given[0])
        previous = self._held.get(name)
        self._held[name] = kept
        if previous is not None:
            os.close(previous)

    def _drop(self, request: Request) -> Fields:
        os.close(self._held.pop(request.name))
        return {}

    def _kill(self, request: Request) -> Fields:
        self._processes.kill(request.name)
        return {}

    def _forget(self, request: Request) -> Fields:
        self._processes.forget(request.name)
        return {}

    def _list(self, request: Request) -> Fields:
        listing = self._processes.listing()
        names, more = _page(sorted(listing), request.after, 120)
        return {"processes": {name: listing[name] for name in names}, "more": more}

    def _names(self, request: Request) -> Fields:
        held = sorted(name for name in self._held if name.startswith(request.prefix))
        names, more = _page(held, request.after)
        return {"names": names, "more": more}

    def _stop(self, _request: Request) -> Fields:
        if running := self._processes.running():
            raise SpawnError(f"{running} processes run")
        # Before the answer: whoever has it may at once look for a keeper, or start the next.
        self._loop.unwatch(self._listener)
        self._path.unlink(missing_ok=True)
        self._listener.close()
        self._stopping = True
        return {}

    def _tell_exit(self, name: str, status: int) -> None:
        for watcher in tuple(self._watchers):
            with suppress(OSError):
                watcher.send({"event": "exit", "name": name, "status": status})

    def _require_room(self, needed: int) -> None:
        """Refuse before descriptors run out, for the connections of others need some too."""
        taken = len(self._held) + _PER_PROCESS * self._processes.running()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if taken + needed + _SPARE > limit:
            raise SpawnError(f"the keeper may have {limit} descriptors; raise its limit")


def _refuse(client: Client, number: int, why: str, *, missing: bool) -> None:
    client.send({"id": number, "ok": False, "missing": missing, "error": why})


def _page(names: list[str], after: str, extra: int = 8) -> tuple[list[str], bool]:
    """Those beyond after that fit a record, and whether more are left."""
    room = _ROOM
    chosen: list[str] = []
    for name in names:
        if name <= after:
            continue
        room -= 6 * len(name) + extra  # JSON may spell a character in six
        if room < 0:
            return chosen, True
        chosen.append(name)
    return chosen, False


def _fitting(text: str) -> str:
    """The end of a text that fits a record, however JSON spells it."""
    for kept in (_ROOM, _ROOM // 2, _ROOM // 6, _ROOM // 12):
        text = text[-kept:]
        if len(json.dumps(text)) <= _ROOM:
            return text
    return ""
