"""The store of a qube, by the bytes of its sockets and by its commands (in-qube.md section 1)."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.guest.qubesdb import Server, Store
from insula.protocol.errors import ProtocolError
from insula.protocol.qubesdb import Message, MessageType, is_key, take_message
from insula.qrexec.loop import Loop

TIMEOUT = 20.0  # seconds
M = MessageType


class Client:
    """A connection that reads whole messages."""

    def __init__(self, path: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(TIMEOUT)
        self.connection.connect(str(path))
        self._received = bytearray()

    def ask(self, kind: int, path: bytes, data: bytes = b"") -> Message:
        self.connection.sendall(Message(kind, path, data).encode())
        return self.next()

    def next(self) -> Message:
        while (found := take_message(self._received)) is None:
            data = self.connection.recv(65_536)
            if not data:
                raise ConnectionError
            self._received += data
        return found


@pytest.fixture
def served() -> Iterator[tuple[Path, Store, list[tuple[bytes, bytes | None]]]]:
    """A store with two keys, its sockets served by a thread, and what is told of local changes."""
    local: list[tuple[bytes, bytes | None]] = []
    with tempfile.TemporaryDirectory(prefix="qubesdb-") as directory:
        loop, path, store = Loop(), Path(directory, "qubesdb.sock"), Store()
        server = Server(loop, path, store, lambda key, value: local.append((key, value)))
        store.replace({"/name": "work", "/a/b": "1"})
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        yield path, store, local
        loop.running = False
        with socket.socket(socket.AF_UNIX) as wake:
            wake.connect(str(path))
        thread.join(TIMEOUT)
        server.close()


Served = tuple[Path, Store, list[tuple[bytes, bytes | None]]]


def test_the_vectors_of_the_format() -> None:
    read = Message(M.READ, b"/name").encode()
    assert read == bytes.fromhex("002f6e616d65") + bytes(66)
    reply = Message(M.RESP_READ, b"/name", b"work").encode()
    assert reply == bytes.fromhex("0a2f6e616d65") + bytes(62) + bytes.fromhex("04000000776f726b")


def test_values_are_read_listed_and_written(served: Served) -> None:
    path, _, local = served
    client = Client(path)
    with client.connection:
        assert client.ask(M.READ, b"/name") == Message(M.RESP_READ, b"/name", b"work")
        assert client.ask(M.READ, b"/none").type == M.RESP_ERROR_NOENT
        assert client.ask(M.WRITE, b"/a/bc", b"2") == Message(M.RESP_OK, b"/a/bc")
        assert client.ask(M.MULTIREAD, b"/a/b") == Message(M.RESP_MULTIREAD, b"/a/b", b"1")
        assert client.next() == Message(M.RESP_MULTIREAD, b"/a/bc", b"2")
        assert client.next() == Message(M.RESP_MULTIREAD, b"")
        assert client.ask(M.LIST, b"/name") == Message(M.RESP_LIST, b"/name")
        assert client.next() == Message(M.RESP_LIST, b"")
        assert client.ask(M.RM, b"/a/").type == M.RESP_OK
        assert client.ask(M.RM, b"/a/").type == M.RESP_ERROR_NOENT
        assert client.ask(M.WRITE, b"/x/", b"").type == M.RESP_ERROR
        assert client.ask(M.WRITE, b"/x", b"\0").type == M.RESP_ERROR
        assert client.ask(M.WRITE, b"/x", b"v" * 3072).type == M.RESP_ERROR
        assert client.ask(M.WRITE, b"/x", b"v" * 3071).type == M.RESP_OK
        assert client.ask(M.LIST, b"/x", b"data").type == M.RESP_ERROR
    assert local[:2] == [(b"/a/bc", b"2"), (b"/a/", None)]


def test_a_watcher_is_told_of_every_change_in_place(served: Served) -> None:
    path, _, _ = served
    watching, writing = Client(path), Client(path)
    with watching.connection, writing.connection:
        assert watching.ask(M.WATCH, b"/w/").type == M.RESP_OK
        assert watching.ask(M.WATCH, b"/w/a").type == M.RESP_OK
        assert watching.ask(M.UNWATCH, b"/none").type == M.RESP_ERROR_NOENT
        writing.ask(M.WRITE, b"/w/a", b"1")
        assert [watching.next() for _ in range(2)] == [Message(M.RESP_WATCH, b"/w/a")] * 2
        writing.ask(M.RM, b"/w/")
        assert watching.next() == Message(M.RESP_WATCH, b"/w/")
        assert watching.ask(M.UNWATCH, b"/w/").type == M.RESP_OK


def test_the_other_socket_is_to_read_only(served: Served) -> None:
    path, store, _ = served
    client = Client(path.with_name("qubesdb.ro.sock"))
    with client.connection:
        assert client.ask(M.READ, b"/name").data == b"work"
        assert client.ask(M.WRITE, b"/name", b"x").type == M.RESP_ERROR
        assert client.ask(M.RM, b"/name").type == M.RESP_ERROR
    assert store.read(b"/name") == b"work"


@pytest.mark.parametrize(
    "data",
    [Message(M.READ, b"/name", b"x").encode(), Message(99, b"/name").encode(), b"\xff" * 80],
)
def test_who_breaks_the_protocol_is_disconnected(served: Served, data: bytes) -> None:
    path, _, _ = served
    client = Client(path)
    with client.connection:
        client.connection.sendall(data)
        with pytest.raises(ConnectionError):
            client.next()


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    received = bytearray(data)
    try:
        while (message := take_message(received)) is not None:
            is_key(message.path)
    except ProtocolError:
        return


def _run(path: Path, command: str, *words: str) -> tuple[int, str]:
    script = (
        "import sys; from insula.guest.commands.qubesdb import main, read_bool; "
        f"sys.argv[0] = 'qubesdb-{command}'; "
        f"sys.exit({'read_bool' if command == 'read-bool' else 'main'}())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "INSULA_QUBESDB_SOCKET": str(path)},
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_commands_read_write_and_list(served: Served) -> None:
    path, _, _ = served
    assert _run(path, "read", "/name") == (0, "work\n")
    assert _run(path, "read", "/none") == (2, "")
    assert _run(path, "read", "-e", "otherwise", "/none") == (0, "otherwise\n")
    assert _run(path, "write", "/k", "a\x01", "/l", "") == (0, "")
    assert _run(path, "read", "/k") == (0, "a\\x01\n")
    assert _run(path, "read", "-r", "/k") == (0, "a\x01\n")
    assert _run(path, "multiread", "/a/") == (0, "b = 1\n")
    assert _run(path, "list", "-f", "/a") == (0, "/a/b\n")
    assert _run(path, "cmd", "-c", "read", "/name") == (0, "work\n")
    assert _run(path, "rm", "/none") == (2, "")
    assert _run(path, "read-bool", "/k")[0] == 0
    assert _run(path, "read-bool", "/l")[0] == 1
    assert _run(path, "read-bool", "/none")[0] == 2
    assert _run(path, "read-bool", "/none", "0")[0] == 0
    assert _run(path, "write", "odd")[0] == 1
