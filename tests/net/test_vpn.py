"""The VPN qube of docs/network.md: what is behind it goes through the tunnel or nowhere."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.guest.firewall import tables
from tests.net.namespaces import Namespace, join
from tests.net.world import BOTH, IPV4, Family, Udp, World, send, servers

PAGE = Path(__file__).parents[2] / "docs" / "network.md"
TUNNEL = ("10.99.0.2", "10.99.0.1")  # our end, and the other
DNS = "198.51.100.53"
VIRTUAL_DNS = ("10.139.1.1", 53)


def kill_switch() -> str:
    """The script that the page has people write."""
    found = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        if "custom-forward" in block
    ]
    assert len(found) == 1
    return str(found[0])


def load(qube: Namespace, tmp_path: Path, dns: str = DNS) -> None:
    (tmp_path / "dns").write_text(f"{dns}\n" if dns else "")
    script = tmp_path / "50-vpn"
    script.write_text(kill_switch().replace("/rw/config/vpn/dns", f"{tmp_path}/dns"))
    with qube.entered():
        subprocess.run(["sh", "-e", str(script)], timeout=60, check=True)


@pytest.fixture
def vpn(net: World, tmp_path: Path) -> World:
    """A VPN qube whose clients' own rules let everything pass, as yet without a tunnel."""
    net.provider.ip("link set eth0 group 1")
    load(net.provider, tmp_path)
    with net.provider.entered():
        tables.none_enforced()
    return net


@pytest.fixture
def far_end(vpn: World) -> Iterator[Namespace]:
    """Where the tunnel comes out; it stands for all that is beyond."""
    other = Namespace()
    join(vpn.provider, "wg0", other, "wg0")
    vpn.provider.ip(
        f"addr add {TUNNEL[0]}/24 dev wg0",
        "link set wg0 up",
        f"route add 0.0.0.0/1 via {TUNNEL[1]} dev wg0",
        f"route add 128.0.0.0/1 via {TUNNEL[1]} dev wg0",
    )
    other.ip(
        f"addr add {TUNNEL[1]}/24 dev wg0",
        "link set wg0 up",
        *(f"addr add {address}/32 dev lo" for address in (*IPV4.served, DNS)),
    )
    yield other
    other.close()


def everybody_tries(vpn: World, family: Family) -> None:
    for client in vpn.clients:
        for address in family.served:
            for port in (53, 80):
                send(client, family, (address, port))
        send(client, IPV4, VIRTUAL_DNS)


def test_without_a_tunnel_nothing_leaves(vpn: World) -> None:
    for family in BOTH:
        with servers(vpn.outside, family, 53, 80) as outside:
            everybody_tries(vpn, family)
            vpn.settled()
            assert all(server.received() == [] for server in outside.values())


def test_without_the_switch_it_would(net: World) -> None:
    with net.provider.entered():
        tables.none_enforced()
    with servers(net.outside, IPV4, 80) as outside:
        everybody_tries(net, IPV4)
        net.settled()
        assert all(server.received() for server in outside.values())


def test_through_the_tunnel_and_back(vpn: World, far_end: Namespace) -> None:
    target = (IPV4.served[0], 80)
    with (
        Udp(far_end, IPV4, *target) as beyond,
        Udp(vpn.outside, IPV4, *target) as outside,
        vpn.clients[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"hello", target)
        assert beyond.answer() == b"hello"
        assert client.recv(100) == b"hello"
        assert outside.received() == []


def test_names_are_asked_for_at_the_other_end(vpn: World, far_end: Namespace) -> None:
    with Udp(far_end, IPV4, DNS, 53) as names:
        for number, target in enumerate((VIRTUAL_DNS, (IPV4.served[2], 53))):
            with vpn.clients[number].socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(target)
                client.send(b"where is it?")
                assert names.answer() == b"where is it?"
                assert client.recv(100) == b"where is it?"


def test_a_tunnel_that_goes_takes_no_connection_back_to_the_uplink(
    vpn: World, far_end: Namespace
) -> None:
    target = (IPV4.served[0], 80)
    with (
        Udp(far_end, IPV4, *target) as beyond,
        servers(vpn.outside, IPV4, 53, 80) as outside,
        vpn.clients[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"hello", target)
        beyond.answer()
        client.recv(100)
        vpn.provider.ip("link delete wg0")
        client.sendto(b"still there?", target)
        everybody_tries(vpn, IPV4)
        vpn.settled()
        assert all(server.received() == [] for server in outside.values())


def test_without_a_name_server_names_are_asked_of_nobody(
    vpn: World, far_end: Namespace, tmp_path: Path
) -> None:
    load(vpn.provider, tmp_path, dns="")
    with servers(far_end, IPV4, 53) as beyond, servers(vpn.outside, IPV4, 53) as outside:
        everybody_tries(vpn, IPV4)
        vpn.settled()
        came = [server.received() for server in (*beyond.values(), *outside.values())]
        assert all(one == [] for one in came)


def test_the_switch_may_be_thrown_twice(vpn: World, tmp_path: Path) -> None:
    load(vpn.provider, tmp_path)
    rules = vpn.provider.run("nft", "list", "chain", "ip", "qubes", "custom-forward")
    assert rules.count("oifgroup 1") == 1
