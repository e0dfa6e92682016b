"""The other side of an agent over the socket vchan: a daemon, and ends of data channels."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from insula.protocol.frames import HEADER

TIMEOUT = 20.0  # seconds for anything that a test waits for
DOMAIN = 42
HELLO = struct.pack("<III", 0x300, 4, 4)
STDIN, STDOUT, STDERR, EXIT = 0x190, 0x191, 0x192, 0x193
EXEC, JUST_EXEC, CONNECT, REFUSED, TERMINATED = 0x200, 0x201, 0x202, 0x203, 0x211
TRIGGER4 = 0x213

Message = tuple[int, bytes]


def message(kind: int, body: bytes = b"") -> bytes:
    """A whole message."""
    return HEADER.pack(kind, len(body)) + body


class Channel:
    """A connection on which messages come."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(TIMEOUT)

    def send(self, kind: int, body: bytes = b"") -> None:
        self.connection.sendall(message(kind, body))

    def read(self) -> Message | None:
        """The next message; None at the end."""
        head = self._exactly(HEADER.size)
        if not head:
            return None
        kind, length = HEADER.unpack(head)
        return kind, self._exactly(length)

    def all(self) -> list[Message]:
        """Every message until the end."""
        found = []
        while (one := self.read()) is not None:
            found.append(one)
        return found

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            if not more:
                return data
            data += more
        return data


class Peer:
    """Sockets of a directory, with an agent of domain 42 and its environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.undo = ExitStack()
        self.services = directory / "services"
        self.configs = directory / "configs"
        self.agent_socket = directory / "agent.sock"
        for place in (self.services, self.configs):
            place.mkdir()
        self.environment = {
            **os.environ,
            "VCHAN_SOCKET_DIR": str(directory),
            "VCHAN_DOMAIN": str(DOMAIN),
            "QREXEC_SERVICE_PATH": str(self.services),
            "QUBES_RPC_CONFIG_PATH": str(self.configs),
        }

    def service(self, name: str, script: str) -> None:
        path = self.services / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @contextmanager
    def running(
        self, module: str, *words: str, environment: Mapping[str, str] | None = None
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A program of ours, ended with the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env={**self.environment, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=TIMEOUT)

    def connect(self, server: int, client: int, port: int) -> Channel:
        """Be the client of a vchan, until the peer is closed."""
        path = self.directory / f"vchan.{server}.{client}.{port}.sock"
        channel = Channel(connect(path))
        self.undo.callback(channel.connection.close)
        return channel

    def listen(self, server: int, client: int, port: int) -> socket.socket:
        """Be the server of a vchan."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.directory / f"vchan.{server}.{client}.{port}.sock"))
        listener.listen(1)
        listener.settimeout(TIMEOUT)
        return listener

    @contextmanager
    def agent(self, *words: str) -> Iterator[Channel]:
        """An agent that was greeted, seen from its daemon."""
        options = ("-a", str(self.agent_socket), *(words or ("-S",)))
        with self.running("insula.guest.standalone", *options) as process:
            control = self.connect(DOMAIN, 0, 512)
            assert control.read() == (0x300, struct.pack("<I", 4))
            control.connection.sendall(HELLO)
            wait_for_socket(self.agent_socket)
            assert process.poll() is None
            yield control

    @contextmanager
    def call(
        self, control: Channel, text: str, *, kind: int = EXEC, port: int = 513
    ) -> Iterator[Channel]:
        """Have the agent run a command; the caller's end, both greeted."""
        with self.listen(0, DOMAIN, port) as listener:
            control.send(kind, struct.pack("<II", 0, port) + text.encode() + b"\0")
            connection, _ = listener.accept()
        (self.directory / f"vchan.0.{DOMAIN}.{port}.sock").unlink()
        with connection:
            channel = Channel(connection)
            connection.sendall(HELLO)
            assert channel.read() == (0x300, struct.pack("<I", 4))
            yield channel


def connect(path: Path) -> socket.socket:
    """Connect to a socket as soon as it is there."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def wait_for_socket(path: Path) -> None:
    """Wait until a socket is listened on."""
    connect(path).close()


def output(messages: list[Message], kind: int = STDOUT) -> bytes:
    """What was sent on a stream, all together."""
    return b"".join(body for one, body in messages if one == kind)
