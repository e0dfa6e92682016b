"""qrexec's programs as a foreign test would have them: by their names, over the socket vchan."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

from tests.serving import user
from tests.unit.qrexec.peer import HELLO, TIMEOUT, Channel, connect, wait_for_socket

HELLO3 = HELLO[:8] + b"\3\0\0\0"
UUID = "00000000-0000-4000-8000-0000000000{:02}"
ME = user()

Process = subprocess.Popen[bytes]
Done = tuple[int, bytes, bytes]


class Place:
    """A directory for all sockets, with an agent's services, and programs that end with it."""

    def __init__(self, directory: Path, undo: ExitStack) -> None:
        self.directory, self.undo = directory, undo
        self.services = directory / "services"
        self.configs = directory / "configs"
        for place in (self.services, self.configs):
            place.mkdir()
        self.environment = {
            **os.environ,
            "VCHAN_SOCKET_DIR": str(directory),
            "QREXEC_SERVICE_PATH": str(self.services),
            "QUBES_RPC_CONFIG_PATH": str(self.configs),
            "INSULA_RUN": str(directory),
        }
        self.fallback("exit 1")

    def service(self, name: str, script: str) -> None:
        self._script(self.services / name, script)

    def fallback(self, script: str) -> None:
        """What the program does that is asked where no policy daemon is."""
        self._script(self.directory / "fallback", script)

    def _script(self, path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(
        self,
        name: str,
        *words: str,
        domain: int = 0,
        stdin: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Process:
        """A program, ended with the place."""
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(name)), *words],
            env={**self.environment, "VCHAN_DOMAIN": str(domain), **environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        self.undo.callback(_end, process)
        return process

    def run(self, name: str, *words: str, domain: int = 0, given: bytes = b"") -> Done:
        """A program to its end: exit code, output and messages."""
        process = self.start(name, *words, domain=domain)
        output, errors = process.communicate(given, timeout=TIMEOUT)
        return process.returncode, output, errors

    def listen(self, name: str) -> socket.socket:
        """Be the server of a socket in the directory, until the place is gone."""
        listener = self.undo.enter_context(socket.socket(socket.AF_UNIX))
        path = self.directory / name
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(TIMEOUT)
        return listener

    def channel(self, connection: socket.socket) -> Channel:
        self.undo.callback(connection.close)
        return Channel(connection)

    def accept(self, listener: socket.socket) -> Channel:
        return self.channel(listener.accept()[0])

    def connect(self, name: str) -> Channel:
        """Be the client of a socket as soon as it is there."""
        return self.channel(connect(self.directory / name))

    def vchan(self, server: int, client: int, port: int) -> Channel:
        """Be the client of a vchan."""
        return self.connect(f"vchan.{server}.{client}.{port}.sock")

    def agent(self, domain: int, *words: str) -> Channel:
        """A program as agent, seen from its daemon: nothing is read yet."""
        self.start("qrexec-agent", "-a", self.agent_socket(domain), *words, domain=domain)
        return self.vchan(domain, 0, 512)

    def greeted_agent(self, domain: int, *words: str) -> Channel:
        control = self.agent(domain, *(words or ("-S",)))
        assert exactly(control, len(HELLO)) == HELLO
        control.connection.sendall(HELLO)
        wait_for_socket(Path(self.agent_socket(domain)))
        return control

    def agent_socket(self, domain: int) -> str:
        return str(self.directory / f"agent.{domain}")

    def daemon(self, domain: int, name: str, user: str = ME, version: int = 4) -> Channel:
        """A program as daemon, seen from its agent, greeted."""
        listener = self.listen(f"vchan.{domain}.0.512.sock")
        words = ("-D", "-q", f"--socket-dir={self.directory}", "-u", UUID.format(domain))
        fallback = str(self.directory / "fallback")
        of_qube = ("-p", fallback, str(domain), name, user)
        self.start("qrexec-daemon", *words, *of_qube, stderr=subprocess.DEVNULL)
        agent = self.accept(listener)
        greeting = HELLO[:8] + bytes((version, 0, 0, 0))
        agent.connection.sendall(greeting)
        assert exactly(agent, len(greeting)) == greeting
        wait_for_socket(self.directory / f"qrexec.{name}")
        return agent

    def client(self, name: str) -> Channel:
        """A client of a daemon, greeted."""
        client = self.connect(f"qrexec.{name}")
        assert exactly(client, len(HELLO3)) == HELLO3
        client.connection.sendall(HELLO3)
        return client

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that no socket tells of."""
        deadline = time.monotonic() + TIMEOUT
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="qrexec-") as directory, ExitStack() as undo:
        yield Place(Path(directory), undo)


def exactly(channel: Channel, size: int) -> bytes:
    """So many bytes, or what came before the end."""
    received = b""
    while len(received) < size and (more := channel.connection.recv(size - len(received))):
        received += more
    return received


def rest(channel: Channel) -> bytes:
    """Everything until the end."""
    received = b""
    try:
        while more := channel.connection.recv(65_536):
            received += more
    except ConnectionResetError:
        pass
    return received


def _end(process: Process) -> None:
    process.kill()
    process.communicate(timeout=TIMEOUT)
