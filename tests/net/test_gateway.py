"""The Tor gateway that `insula init --whonix` makes: without Tor nothing leaves it."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from insula.guest.firewall import tables
from tests.net.namespaces import Namespace
from tests.net.world import BOTH, IPV4, IPV6, Family, Udp, World, pinged, refused, send, servers

TOR = 4242  # a user that nobody is
ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST
TRANSPORT, NAMES = 9040, 5353
VIRTUAL_DNS = ("10.139.1.1", 53)
_AS_USER = """
import os, socket, sys
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
with socket.create_connection((sys.argv[2], int(sys.argv[3])), 5) as connection:
    connection.sendall(b"by tor")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Its /rw/config, and programs that answer as the gateway's would."""
    source = files("insula.tools.init") / "files" / "gateway"
    for name in ("torrc", "closed.nft", "rules.nft"):
        (tmp_path / name).write_bytes((source / "tor-gateway" / name).read_bytes())
    script = (source / "rc.local-early.d" / "50-tor-gateway.rc").read_text()
    for before, after in (("/rw/config/tor-gateway", tmp_path), ("/etc/tor", tmp_path / "etc")):
        assert before in script
        script = script.replace(before, str(after))
    (tmp_path / "early").write_text(script)
    (tmp_path / "etc").mkdir()
    (tmp_path / "bin").mkdir()
    program(tmp_path, "id", f'[ "$*" = "-u debian-tor" ] && echo {TOR}')
    program(tmp_path, "systemctl", f"touch {tmp_path}/ended")
    return tmp_path


def program(place: Path, name: str, text: str) -> None:
    path = place / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def start(gateway: Namespace, place: Path) -> int:
    """What the gateway does before it has a network."""
    with gateway.entered():
        done = subprocess.run(
            ["sh", str(place / "early")],
            env={**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}"},
            timeout=60,
            check=False,
        )
    return done.returncode


@pytest.fixture
def gateway(net: World, place: Path) -> World:
    """A gateway whose clients' own rules would let everything pass."""
    net.provider.ip("link set eth0 group 1")
    assert start(net.provider, place) == 0
    with net.provider.entered():
        tables.none_enforced()
    return net


@contextlib.contextmanager
def listening(place: Namespace, address: str, port: int) -> Iterator[socket.socket]:
    with place.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        yield listener


def original(connection: socket.socket) -> tuple[str, int]:
    """Where a redirected connection was to go."""
    raw = connection.getsockopt(socket.SOL_IP, ORIGINAL_DESTINATION, 16)
    port, address = struct.unpack_from("!2xH4s", raw)
    return socket.inet_ntoa(address), port


def test_connections_of_clients_go_to_tor(gateway: World) -> None:
    target = (IPV4.served[0], 443)
    with (
        listening(gateway.outside, *target) as outside,
        listening(gateway.provider, "0.0.0.0", TRANSPORT) as tor,
        gateway.clients[0].socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        client.connect(target)
        connection, who = tor.accept()
        with connection:
            assert who[0] == IPV4.clients[0]
            assert original(connection) == target
            client.sendall(b"hello")
            assert connection.recv(100) == b"hello"
            connection.sendall(b"you, too")
            assert client.recv(100) == b"you, too"
        outside.settimeout(0.2)
        with pytest.raises(TimeoutError):
            outside.accept()


def test_names_are_asked_of_tor(gateway: World) -> None:
    with Udp(gateway.provider, IPV4, "0.0.0.0", NAMES) as tor:
        for target in (VIRTUAL_DNS, (IPV4.served[2], 53)):
            with gateway.clients[1].socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(target)
                client.send(b"where is it?")
                assert tor.answer() == b"where is it?"
                assert client.recv(100) == b"where is it?"


def test_nothing_of_a_client_passes(gateway: World, family: Family) -> None:
    with servers(gateway.outside, family, 53, 80, 123) as outside:
        for target in outside:
            send(gateway.clients[0], family, target)
        if family is IPV4:
            assert refused(gateway.clients[1], family, (family.served[0], 123))
        assert not pinged(gateway.clients[0], family, family.served[0])
        assert all(server.received() == [] for server in outside.values())


def test_a_client_reaches_nothing_of_the_gateway_itself(gateway: World) -> None:
    client = gateway.clients[0]
    with (
        listening(gateway.provider, "0.0.0.0", 8082) as proxy,
        Udp(gateway.provider, IPV4, "0.0.0.0", NAMES) as names,
    ):
        with client.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(0.5)
            with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
                connection.connect((IPV4.provider, 8082))
        assert refused(client, IPV4, (IPV4.provider, NAMES))
        assert names.received() == []
        proxy.settimeout(0.2)
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_of_the_gateway_only_tor_speaks_with_the_outside(gateway: World) -> None:
    for family in BOTH:
        with servers(gateway.outside, family, 53, 80) as outside:
            for target in outside:
                with contextlib.suppress(OSError):
                    send(gateway.provider, family, target)
            assert not pinged_or_refused(gateway.provider, family)
            assert all(server.received() == [] for server in outside.values())
    target = (IPV4.served[0], 9001)
    with listening(gateway.outside, *target) as outside_listener:
        own = gateway.provider.socket(socket.AF_INET, socket.SOCK_STREAM)
        with own, pytest.raises(ConnectionRefusedError):  # It goes to Tor, which is not there.
            own.connect(target)
        words = [sys.executable, "-c", _AS_USER, str(TOR), target[0], str(target[1])]
        with gateway.provider.popen(words) as process:
            connection, who = outside_listener.accept()
            with connection:
                assert connection.recv(100) == b"by tor"
                assert who[0] == IPV4.uplink
            assert process.wait(20) == 0


def pinged_or_refused(place: Namespace, family: Family) -> bool:
    try:
        return pinged(place, family, family.served[0])
    except OSError:
        return False


def test_the_gateways_own_connections_and_names_go_to_tor(gateway: World) -> None:
    target = (IPV4.served[0], 443)
    with (
        listening(gateway.provider, "127.0.0.1", TRANSPORT) as tor,
        gateway.provider.socket(socket.AF_INET, socket.SOCK_STREAM) as own,
        Udp(gateway.provider, IPV4, "127.0.0.1", NAMES) as names,
    ):
        own.connect(target)
        connection, _ = tor.accept()
        with connection:
            assert original(connection) == target
        send(gateway.provider, IPV4, VIRTUAL_DNS, b"where is it?")
        assert names.socket.recv(100) == b"where is it?"


def leaks(net: World) -> list[bytes]:
    """What comes out when everybody tries, and nobody's own rules forbid it."""
    net.provider.ip("link set eth0 group 1")
    with net.provider.entered():
        tables.none_enforced()
    came = []
    for family in BOTH:
        with servers(net.outside, family, 53, 80) as outside:
            for target in outside:
                for number, one in enumerate((net.provider, *net.clients)):
                    with contextlib.suppress(OSError):
                        send(one, family, target, f"of {number}".encode())
            came += [data for server in outside.values() for data, _ in server.received()]
    return came


def test_without_the_package_of_tor_all_stays_closed(net: World, place: Path) -> None:
    program(place, "id", "exit 1")
    assert start(net.provider, place) == 1
    assert leaks(net) == []
    assert not (place / "ended").exists()


def test_rules_that_somebody_broke_leave_all_closed(net: World, place: Path) -> None:
    with (place / "rules.nft").open("a") as rules:
        rules.write("add rule ip qubes no-such-chain accept\n")
    assert start(net.provider, place) == 1
    assert leaks(net) == []


def test_a_gateway_that_cannot_be_closed_ends(net: World, place: Path) -> None:
    assert len(leaks(net)) > 0  # So the others find something to keep in.
    (place / "closed.nft").write_text("no rules at all\n")
    start(net.provider, place)
    assert (place / "ended").exists()


def test_it_may_be_started_twice(gateway: World, place: Path) -> None:
    assert start(gateway.provider, place) == 0
    rules = gateway.provider.run("nft", "list", "chain", "ip", "qubes", "custom-input")
    assert rules.count("jump tor-gateway") == 1
    assert (place / "etc" / "torrc").read_text() == (place / "torrc").read_text()
    send(gateway.clients[0], IPV6, (IPV6.served[0], 80))
