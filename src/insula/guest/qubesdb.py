"""The QubesDB of this qube: its sockets, and its mirror in dom0 (in-qube.md section 1)."""

import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from insula.protocol.errors import ProtocolError
from insula.protocol.qubesdb import (
    Message,
    MessageType,
    is_key,
    is_prefix,
    is_value,
    take_message,
)
from insula.qrexec.loop import READ, Loop
from insula.qrexec.port import SocketPort

SOCKET_PATH = "/run/qubes/qubesdb.sock"
_READ_ONLY = "qubesdb.ro.sock"
_MOST_CLIENTS = 256
_MOST_KEYS = 8192
_BACKLOG = 64

Changed = Callable[[bytes, bytes | None], None]


class Store:
    """Keys and values; whoever watches is told of each change, with None for a removal."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self.watchers: list[Changed] = []

    def read(self, path: bytes) -> bytes | None:
        """A value; None when there is none."""
        return self._values.get(path)

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with a text, in their order, and their values."""
        keys = sorted(self._values)
        for key in keys[bisect_left(keys, prefix) :]:
            if not key.startswith(prefix):
                return
            yield key, self._values[key]

    def write(self, path: bytes, value: bytes) -> bool:
        """Keep a value; False where there are too many."""
        if path not in self._values and len(self._values) >= _MOST_KEYS:
            return False
        self._values[path] = value
        self._tell(path, value)
        return True

    def remove(self, path: bytes) -> bool:
        """Remove a key, or all below a path that ends in a slash; False where there is none."""
        gone = [path] if path in self._values else []
        if path.endswith(b"/"):
            gone = [key for key, _ in self.below(path)]
        for key in gone:
            del self._values[key]
        if gone:
            self._tell(path, None)
        return bool(gone)

    def replace(self, values: dict[str, str]) -> None:
        """Be what dom0 says at a start; those who watch are told of what differs."""
        fresh = {key.encode(): value.encode() for key, value in values.items()}
        for key in [key for key in self._values if key not in fresh]:
            self.remove(key)
        for key, value in fresh.items():
            if self._values.get(key) != value:
                self.write(key, value)

    def _tell(self, path: bytes, value: bytes | None) -> None:
        for watcher in tuple(self.watchers):
            watcher(path, value)


class _Client:
    """One connection. writable: whether it may change anything."""

    def __init__(self, port: SocketPort, *, writable: bool) -> None:
        self.port = port
        self.writable = writable
        self.received = bytearray()
        self.watched: Counter[bytes] = Counter()

    def say(self, kind: MessageType, path: bytes = b"", data: bytes = b"") -> None:
        self.port.write(Message(kind, path, data).encode())


class Server:
    """Serves the store on two sockets, of which one is to read only.

    on_local: told of what programs of this qube write and remove.
    """

    def __init__(self, loop: Loop, path: Path, store: Store, on_local: Changed) -> None:
        self._loop, self._store, self._on_local = loop, store, on_local
        self._clients: set[_Client] = set()
        store.watchers.append(self._changed)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._listeners = [
            self._listen(path, writable=True),
            self._listen(path.with_name(_READ_ONLY), writable=False),
        ]

    def close(self) -> None:
        """Serve nobody any more."""
        for client in tuple(self._clients):
            self._drop(client)
        for listener in self._listeners:
            self._loop.drop(listener.fileno())
            listener.close()

    def _listen(self, path: Path, *, writable: bool) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(_BACKLOG)
        accept = partial(self._accept, listener, writable)
        self._loop.add(listener.fileno(), READ, lambda _events: accept())
        return listener

    def _accept(self, listener: socket.socket, writable: bool) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(SocketPort(self._loop), writable=writable)
        self._clients.add(client)
        client.port.on_data = partial(self._take, client)
        client.port.on_closed = partial(self._drop, client)
        client.port.use(connection.detach())

    def _drop(self, client: _Client) -> None:
        client.port.close()
        self._clients.discard(client)

    def _changed(self, path: bytes, _value: bytes | None) -> None:
        for client in tuple(self._clients):
            for watched, count in client.watched.items():
                if path == watched or (watched.endswith(b"/") and path.startswith(watched)):
                    for _ in range(count):
                        client.say(MessageType.RESP_WATCH, path)
            if client.port.full:
                self._drop(client)  # It does not read.

    def _take(self, client: _Client, data: bytes) -> None:
        client.received += data
        try:
            while client in self._clients:
                message = take_message(client.received)
                if message is None:
                    return
                self._serve(client, message)
        except ProtocolError as error:
            print(f"qubesdb: {error}", flush=True)
            self._drop(client)

    def _serve(self, client: _Client, message: Message) -> None:
        match message.type:
            case MessageType.READ:
                self._read(client, message)
            case MessageType.WRITE:
                self._write(client, message)
            case _ if message.data:
                client.say(MessageType.RESP_ERROR, message.path)
            case MessageType.MULTIREAD | MessageType.LIST:
                self._list(client, message)
            case MessageType.RM:
                self._remove(client, message)
            case MessageType.WATCH | MessageType.UNWATCH:
                self._watch(client, message)
            case _:
                raise ProtocolError(f"unexpected type {message.type}")

    def _read(self, client: _Client, message: Message) -> None:
        if message.data:
            raise ProtocolError("a read with data")
        value = self._store.read(message.path)
        if not is_key(message.path):
            client.say(MessageType.RESP_ERROR, message.path)
        elif value is None:
            client.say(MessageType.RESP_ERROR_NOENT, message.path)
        else:
            client.say(MessageType.RESP_READ, message.path, value)

    def _write(self, client: _Client, message: Message) -> None:
        if not client.writable or not is_key(message.path) or not is_value(message.data):
            client.say(MessageType.RESP_ERROR, message.path)
            return
        if not self._store.write(message.path, message.data):
            client.say(MessageType.RESP_ERROR, message.path)
            self._drop(client)
            return
        client.say(MessageType.RESP_OK, message.path)
        self._on_local(message.path, message.data)

    def _list(self, client: _Client, message: Message) -> None:
        values = message.type == MessageType.MULTIREAD
        answer = MessageType.RESP_MULTIREAD if values else MessageType.RESP_LIST
        if message.path and not is_prefix(message.path):
            client.say(MessageType.RESP_ERROR, message.path)
            return
        for path, value in self._store.below(message.path):
            client.say(answer, path, value if values else b"")
        client.say(answer)

    def _remove(self, client: _Client, message: Message) -> None:
        if not client.writable or not is_prefix(message.path):
            client.say(MessageType.RESP_ERROR, message.path)
        elif self._store.remove(message.path):
            client.say(MessageType.RESP_OK, message.path)
            self._on_local(message.path, None)
        else:
            client.say(MessageType.RESP_ERROR_NOENT, message.path)

    def _watch(self, client: _Client, message: Message) -> None:
        if not is_prefix(message.path):
            client.say(MessageType.RESP_ERROR, message.path)
        elif message.type == MessageType.WATCH:
            client.watched[message.path] += 1
            client.say(MessageType.RESP_OK, message.path)
        elif client.watched[message.path]:
            client.watched[message.path] -= 1
            client.watched += Counter()
            client.say(MessageType.RESP_OK, message.path)
        else:
            client.say(MessageType.RESP_ERROR_NOENT, message.path)
