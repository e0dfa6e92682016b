"""An outside of the tests' own: two network namespaces, of which one stands for this computer.

In the other are servers that note who came. Neither touches the network of the host.
"""

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.vm.instance import wait_for

HOST, ROUTER = "203.0.113.10", "203.0.113.1"
SERVER = "198.51.100.1"
OTHER = "198.51.100.2"
TCP, UDP, HTTP = 9000, 9001, 80
_RESOLVERS = Path("/etc/netns")
_TIMEOUT = 30.0
_PROGRAM = (sys.executable, "-u", "-m", "tests.vm.world")
_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class World:
    """host: the namespace in which the instance is to run. notes: what the servers write."""

    host: str
    outside: str
    notes: Path

    def words(self, *words: str) -> tuple[str, ...]:
        """Words that run a command on the computer that is tested."""
        return ("ip", "netns", "exec", self.host, *words)

    def seen(self) -> list[dict[str, str]]:
        """Who came to the servers, in order."""
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    @contextmanager
    def listener(self, address: str, port: int) -> Iterator[list[str]]:
        """Somebody listens on the computer itself, by TCP and UDP; the list says who came."""
        came: list[str] = []
        process = subprocess.Popen(
            self.words(*_PROGRAM, "listen", address, str(port)),
            stdout=subprocess.PIPE,
            text=True,
            cwd=_PROJECT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield came
        finally:
            process.kill()
            came += process.communicate()[0].splitlines()


@contextmanager
def world(notes: Path) -> Iterator[World]:
    """Make one, for as long as the block."""
    host, outside = (f"insula-{what}-{os.getpid()}" for what in ("host", "out"))
    made = World(host, outside, notes)
    with ExitStack() as undo:
        for name in (host, outside):
            _ip("netns", "add", name)
            undo.callback(_ip, "netns", "del", name)
        resolvers = _RESOLVERS / host / "resolv.conf"
        resolvers.parent.mkdir(parents=True)
        undo.callback(resolvers.parent.rmdir)
        undo.callback(resolvers.unlink)
        resolvers.write_text(f"nameserver {ROUTER}\n")
        link = ("type", "veth", "peer", "name", "out0", "netns", outside)
        _ip("-n", host, "link", "add", "out0", *link)
        for name, address in ((host, f"{HOST}/24"), (outside, f"{ROUTER}/24")):
            _ip("-n", name, "addr", "add", address, "dev", "out0")
            for device in ("lo", "out0"):
                _ip("-n", name, "link", "set", device, "up")
        _ip("-n", host, "route", "add", "default", "via", ROUTER)
        for address in (SERVER, OTHER):
            _ip("-n", outside, "addr", "add", f"{address}/32", "dev", "lo")
        notes.touch()
        serving = subprocess.Popen(
            ("ip", "netns", "exec", outside, *_PROGRAM, "serve", str(notes)),
            stdout=subprocess.PIPE,
            cwd=_PROJECT,
        )
        undo.callback(serving.communicate)
        undo.callback(serving.kill)
        assert serving.stdout is not None
        wait_for(lambda: serving.stdout and serving.stdout.readline(), "the servers")
        yield made


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, timeout=_TIMEOUT)


def _serve(notes: Path) -> None:
    """Be the servers: TCP greets, UDP says again, and every name is that of SERVER.

    By HTTP there is what lies in the directory www beside the notes.
    """
    selector = selectors.DefaultSelector()
    out = notes.open("a", buffering=1)

    def note(**fields: str) -> None:
        out.write(json.dumps(fields) + "\n")

    www = notes.parent / "www"
    www.mkdir()

    class Pages(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(www))

        def log_message(self, *_words: Any) -> None:
            note(kind="http", peer=self.client_address[0], path=self.path)

    pages = ThreadingHTTPServer((SERVER, HTTP), Pages)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    for address in (SERVER, OTHER):
        listening = socket.create_server((address, TCP))
        selector.register(listening, selectors.EVENT_READ, "tcp")
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((address, UDP))
        selector.register(datagrams, selectors.EVENT_READ, "udp")
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((ROUTER, 53))
    selector.register(names, selectors.EVENT_READ, "dns")
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            one = key.fileobj
            assert isinstance(one, socket.socket)
            if key.data == "tcp":
                connection, peer = one.accept()
                note(kind="tcp", peer=peer[0], at=one.getsockname()[0])
                connection.sendall(b"hello\n")
                selector.register(connection, selectors.EVENT_READ, "echo")
            elif key.data == "echo":
                _say_again(one, selector)
            else:
                data, peer = one.recvfrom(4096)
                note(kind=key.data, peer=peer[0], said=data.hex())
                one.sendto(_answer(data) if key.data == "dns" else data, peer)


def _say_again(connection: socket.socket, selector: selectors.BaseSelector) -> None:
    try:
        data = connection.recv(65_536)
    except OSError:
        data = b""
    if data:
        connection.sendall(data)
    else:
        selector.unregister(connection)
        connection.close()


def _answer(query: bytes) -> bytes:
    """SERVER, whatever address was asked for; no address of IPv6."""
    end = query.index(b"\0", 12) + 5
    wanted = int.from_bytes(query[end - 4 : end - 2], "big")
    head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if wanted == 1 else b"\0\0") + b"\0\0\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + socket.inet_aton(SERVER)
    return head + query[12:end] + (record if wanted == 1 else b"")


def _listen(address: str, port: int) -> None:
    listening = socket.create_server((address, port))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, port))

    def take() -> None:
        while True:
            print("udp", datagrams.recvfrom(100)[1][0], flush=True)

    threading.Thread(target=take, daemon=True).start()
    print("ready", flush=True)
    while True:
        print("tcp", listening.accept()[1][0], flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(Path(sys.argv[2]))
    else:
        _listen(sys.argv[2], int(sys.argv[3]))
