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
from insula.protocol.keeper import JailSpec

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
        self._operations: dict[str, Callable[[Fields, list[int]], Fields]] = {
            "hello": lambda _fields, _given: {"version": wire.VERSION, "pid": os.getpid()},
            "verify": lambda fields, _given: {"facts": self._processes.verify(_name(fields))},
            "kill": self._kill,
            "list": self._list,
            "forget": self._forget,
            "log": lambda fields, _given: {"text": _fitting(self._processes.log(_name(fields)))},
            "hold": self._hold,
            "drop": self._drop,
            "names": self._names,
            "stop": self._stop,
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

    def _serve(self, client: Client, fields: Fields, given: list[int]) -> None:
        number = fields.get("id")
        if not isinstance(number, int):
            raise ProtocolError("a request has no id")
        operation = fields.get("op")
        sent: list[int] = []
        try:
            match operation:
                case "spawn":
                    self._spawn(client, number, fields, given)
                    return
                case "take":
                    answer: Fields = {}
                    sent = [self._held[_name(fields)]]
                case "watch":
                    self._watchers.add(client)
                    answer = {}
                case str() if operation in self._operations:
                    answer = self._operations[operation](fields, given)
                case _:
                    raise ProtocolError("no such operation")
            client.send({"id": number, "ok": True, **answer}, sent)
        except (KeyError, SpawnError, OSError, NotImplementedError) as error:
            _refuse(client, number, str(error), missing=isinstance(error, KeyError))

    def _spawn(self, client: Client, number: int, fields: Fields, given: list[int]) -> None:
        jail = fields.get("jail")
        if not isinstance(jail, dict):
            raise ProtocolError("a spawn has no jail")
        self._require_room(_PER_PROCESS)

        def answer(started: dict[str, int] | None, pidfd: int, failure: str) -> None:
            if started is None:
                _refuse(client, number, _fitting(failure), missing=False)
            else:
                client.send({"id": number, "ok": True, **started}, [pidfd])

        self._processes.start(_name(fields), JailSpec.from_json(jail), given, answer)

    def _hold(self, fields: Fields, given: list[int]) -> Fields:
        name = _name(fields)
        if len(given) != 1:
            raise ProtocolError(f"{len(given)} descriptors to hold under one name")
        self._require_room(1)
        kept = os.dup(given[0])
        previous = self._held.get(name)
        self._held[name] = kept
        if previous is not None:
            os.close(previous)
        return {}

    def _drop(self, fields: Fields, _given: list[int]) -> Fields:
        os.close(self._held.pop(_name(fields)))
        return {}

    def _kill(self, fields: Fields, _given: list[int]) -> Fields:
        self._processes.kill(_name(fields))
        return {}

    def _forget(self, fields: Fields, _given: list[int]) -> Fields:
        self._processes.forget(_name(fields))
        return {}

    def _list(self, fields: Fields, _given: list[int]) -> Fields:
        listing = self._processes.listing()
        names, more = _page(sorted(listing), fields, 120)
        return {"processes": {name: listing[name] for name in names}, "more": more}

    def _names(self, fields: Fields, _given: list[int]) -> Fields:
        prefix = fields.get("prefix")
        if not isinstance(prefix, str):
            raise ProtocolError("names has no prefix")
        names, more = _page(sorted(name for name in self._held if name.startswith(prefix)), fields)
        return {"names": names, "more": more}

    def _stop(self, _fields: Fields, _given: list[int]) -> Fields:
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


def _name(fields: Fields) -> str:
    name = fields.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= wire.MAX_NAME or not name.isprintable():
        raise ProtocolError("a request has no proper name")
    return name


def _refuse(client: Client, number: int, why: str, *, missing: bool) -> None:
    client.send({"id": number, "ok": False, "missing": missing, "error": why})


def _page(names: list[str], fields: Fields, extra: int = 8) -> tuple[list[str], bool]:
    """Those beyond "after" that fit a record, and whether more are left."""
    after = fields.get("after", "")
    if not isinstance(after, str):
        raise ProtocolError("after is no name")
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
