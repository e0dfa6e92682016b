"""The updates proxy, with real connections."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from insula.guest.updates import proxy
from insula.guest.updates.proxy import Proxy, may_ask, may_be_reached
from insula.guest.updates.requests import MAX_HEAD, TUNNELLED

TIMEOUT = 20.0  # seconds


class Server:
    """Answers each connection with what it was asked, then what it was told to."""

    def __init__(self, answer: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.asked: list[bytes] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(TIMEOUT)
                data = b""
                while not data.endswith(b"\r\n\r\n") and (more := connection.recv(65536)):
                    data += more
                self.asked.append(data)
                connection.sendall(self._answer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT)
        self.listener.close()


@contextmanager
def serving(**further: object) -> Iterator[int]:
    """A proxy on a port of the loopback."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = Proxy(listener, **{"reachable": lambda _: True, "timeout": TIMEOUT, **further})  # type: ignore[arg-type]

        def serve() -> None:
            while not over.is_set():
                served.serve(0.1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "it does not end when nobody comes"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(300_000))
    yield made
    made.close()


def ask(port: int, request: bytes) -> bytes:
    """All that is answered."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.sendall(request)
        received = b""
        while data := client.recv(65536):
            received += data
    return received


def test_a_request_reaches_its_server_and_the_whole_answer_comes(server: Server) -> None:
    with serving() as port:
        target = f"http://127.0.0.1:{server.port}/dists/Release"
        answer = ask(port, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer == b"HTTP/1.1 200 OK\r\n\r\n" + bytes(300_000)
    assert server.asked == [b"GET /dists/Release HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]


def test_a_tunnel_carries_both_directions(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insula.guest.updates.requests.TUNNELLED", (*TUNNELLED, server.port))
    said = b"\x16\x03\x01 not http at all\r\n\r\n"
    with serving() as port:
        answer = ask(port, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % server.port + said)
    assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
    assert server.asked == [said]


def test_nothing_of_this_qube_is_reached(server: Server) -> None:
    with serving(reachable=may_be_reached) as port:
        target = b"http://127.0.0.1:%d/" % server.port
        answer = ask(port, b"GET " + target + b" HTTP/1.1\r\n\r\n")
        named = ask(port, b"GET http://localhost:%d/ HTTP/1.1\r\n\r\n" % server.port)
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert named.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"tor proxy" not in answer
    assert server.asked == []


def test_behind_tor_the_page_of_a_refusal_says_so() -> None:
    with serving(reachable=may_be_reached, torified=lambda: True) as port:
        answer = ask(port, b"GET http://10.137.255.254/ HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b'<meta name="application-name" content="tor proxy"/>' in answer


def test_what_is_too_long_or_nothing_is_refused() -> None:
    with serving() as port:
        assert ask(port, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert ask(port, b"x" * (MAX_HEAD + 4096)).startswith(b"HTTP/1.1 431 ")
        assert ask(port, b"GET http://no-such-host.invalid/ HTTP/1.1\r\n\r\n")[9:12] == b"502"


def test_who_says_nothing_is_dropped() -> None:
    with serving(timeout=0.3) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(TIMEOUT)
        client.sendall(b"GET http://")
        assert client.recv(1) == b""


def test_more_clients_than_are_served_wait_for_a_place(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "CLIENTS", 1)
    with serving() as port, socket.create_connection(("127.0.0.1", port), TIMEOUT) as silent:
        request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n\r\n" % server.port
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as second:
            second.sendall(request)
            second.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.recv(1)
            silent.close()
            second.settimeout(TIMEOUT)
            assert second.recv(8) == b"HTTP/1.1"


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("151.101.2.132", True),
        ("192.168.1.9", True),
        ("2a04:4e42::644", True),
        ("64:ff9b::9765:284", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("10.137.0.5", False),
        ("10.138.3.4", False),
        ("10.139.1.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fd09:24ef:4179::a89:5", False),
    ],
)
def test_updates_come_from_outside(address: str, reached: bool) -> None:
    assert may_be_reached(address) is reached


def test_only_qubes_are_served() -> None:
    asked = ("127.0.0.1", "10.137.4.5", "10.138.0.1", "192.168.1.7", "8.8.8.8")
    assert [one for one in asked if may_ask(one)] == ["127.0.0.1", "10.137.4.5"]


def test_it_serves_the_socket_of_its_unit() -> None:
    words = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3);"
        "from insula.guest.updates.proxy import main; sys.exit(main())"
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        subprocess.Popen(
            [sys.executable, "-c", words, str(listener.fileno())],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=(listener.fileno(),),
        ) as process,
    ):
        port = listener.getsockname()[1]
        try:
            assert ask(port, b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n")[9:12] == b"403"
        finally:
            process.kill()


class Repository(SimpleHTTPRequestHandler):
    """Keeps connections open, as mirrors do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_given: object) -> None:
        """Say nothing."""


def test_apt_fetches_its_lists_and_packages_through_it(tmp_path: Path) -> None:
    for name in ("served", "lists/partial", "archives/partial", "none"):
        (tmp_path / name).mkdir(parents=True)
    package, status = tmp_path / "served" / "a.deb", tmp_path / "status"
    package.write_bytes(bytes(100_000))
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    (tmp_path / "served" / "Packages").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: x\nFilename: ./a.deb\n"
        f"Size: 100000\nSHA256: {digest}\nDescription: a\n"
    )
    status.touch()
    mirror = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Repository, directory=str(tmp_path / "served"))
    )
    thread = threading.Thread(target=mirror.serve_forever)
    thread.start()
    (tmp_path / "sources").write_text(
        f"deb [trusted=yes] http://127.0.0.1:{mirror.server_port}/ ./\n"
    )
    try:
        with serving() as port:
            options = {
                "Acquire::http::Proxy": f"http://127.0.0.1:{port}/",
                "APT::Sandbox::User": "root",
                "Dir::Cache::archives": tmp_path / "archives",
                "Dir::Cache::pkgcache": "",
                "Dir::Cache::srcpkgcache": "",
                "Dir::Etc::parts": tmp_path / "none",
                "Dir::Etc::sourcelist": tmp_path / "sources",
                "Dir::Etc::sourceparts": tmp_path / "none",
                "Dir::State::lists": tmp_path / "lists",
                "Dir::State::status": status,
                "Debug::NoLocking": "1",
            }
            words = [word for pair in options.items() for word in ("-o", "{}={}".format(*pair))]
            for command in (
                ["update", "--error-on=any"],
                ["install", "-y", "--download-only", "a"],
            ):
                done = subprocess.run(
                    ["apt-get", *words, *command],
                    capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
    finally:
        mirror.shutdown()
        thread.join(TIMEOUT)
        mirror.server_close()
    assert (tmp_path / "archives" / "a_1_all.deb").read_bytes() == bytes(100_000)
