"""Links between qubes, by what comes through them (network-firewall.md sections 3 to 5)."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from insula.guest import conntrack
from insula.protocol.control import ControlType
from tests.net.chain import (
    CLIENT_MAC,
    PROVIDER_MAC,
    REAL_DNS,
    VIRTUAL_DNS,
    Chain,
    asked,
    client_keys,
    connect,
    downlink,
    exchanged,
    is_answered,
    outside_link,
    plug,
    reaches,
    unplug,
    uplink,
)
from tests.net.namespaces import Namespace
from tests.net.world import IPV4, IPV6, TIMEOUT, Family, Udp, pinged, send

PORT = 7000
SECOND_MAC = "00:16:3e:5e:80:99"
VISIBLE, VISIBLE_GATEWAY = "192.168.7.2", "192.168.7.1"
UNMASKED = "flush chain ip qubes postrouting\nflush chain ip6 qubes postrouting\n"
OPEN_INPUT = "add rule ip qubes custom-input accept\nadd rule ip6 qubes custom-input accept\n"


def test_packets_pass_down_a_chain(joined: Chain, family: Family) -> None:
    at = (family.served[0], PORT)
    assert reaches(joined.client, family)
    assert asked(joined, family, at, at) == family.uplink
    assert exchanged(joined.client.namespace, joined.outside, family.socket, at) == family.uplink


def test_siblings_do_not_reach_each_other(joined: Chain, family: Family) -> None:
    connect(joined.firewall, joined.sibling)
    mine, its = family.clients
    with Udp(joined.client.namespace, family, mine, PORT) as server:
        joined.client.namespace.nft(OPEN_INPUT)
        send(joined.sibling.namespace, family, (mine, PORT))
        assert not pinged(joined.sibling.namespace, family, mine)
        assert server.received() == []
        # Its own provider may, so it is not the client that refuses.
        send(joined.firewall.namespace, family, (mine, PORT), b"provider")
        assert server.socket.recvfrom(10)[0] == b"provider"
    assert pinged(joined.sibling.namespace, family, family.served[0])
    assert its in joined.firewall.nft_shows("set", family.nft, "qubes", "allowed")


def test_nobody_above_reaches_a_client(joined: Chain, family: Family) -> None:
    mine = family.clients[0]
    joined.client.namespace.nft(OPEN_INPUT)
    joined.net.ip_shows("route", "add", mine, "dev", "vif4.0")
    with Udp(joined.client.namespace, family, mine, PORT) as server:
        for above in (joined.net.namespace, joined.outside):
            send(above, family, (mine, PORT))
            assert not pinged(above, family, mine)
        assert server.received() == []


def test_a_spoofed_source_is_dropped(joined: Chain, family: Family) -> None:
    at = (family.served[0], PORT)
    joined.client.namespace.nft(UNMASKED)  # A qube that is taken over has no rules of its own.
    with Udp(joined.outside, family, *at) as server:
        for source in (family.clients[1], family.absent, family.provider, family.outside):
            send(joined.client.namespace, family, at, b"spoofed", source)
        send(joined.client.namespace, family, at, b"honest")
        assert server.socket.recvfrom(10)[0] == b"honest"
        assert server.received() == []


def test_a_client_without_ipv6_sends_none(row: Chain) -> None:
    connect(row.firewall, row.client, ips=(row.client.ip,))
    at = (IPV6.served[0], PORT)
    with Udp(row.outside, IPV6, *at) as server:
        send(row.client.namespace, IPV6, at, b"spoofed")
        send(row.firewall.namespace, IPV6, at, b"honest")
        assert server.socket.recvfrom(10)[0] == b"honest"
        assert server.received() == []


@pytest.fixture
def told(row: Chain) -> Iterator[Chain]:
    connect(row.firewall, row.client, visible_ip=VISIBLE, visible_gateway=VISIBLE_GATEWAY)
    shown = row.client.ip_shows("address")
    assert VISIBLE in shown
    assert row.client.ip not in shown
    yield row
    row.firewall.unlink(row.client.number)  # A namespace that has a name stays.


def test_a_client_that_is_told_another_address_gets_everywhere(told: Chain) -> None:
    at = (IPV4.served[0], PORT)
    assert pinged(told.client.namespace, IPV4, at[0])
    assert pinged(told.client.namespace, IPV4, VISIBLE_GATEWAY)
    assert asked(told, IPV4, at, at) == IPV4.uplink
    assert asked(told, IPV4, (VIRTUAL_DNS[0], 53), (REAL_DNS, 53)) == IPV4.uplink
    assert exchanged(told.client.namespace, told.outside, socket.AF_INET, at) == IPV4.uplink


def test_a_hidden_clients_provider_sees_its_real_address(told: Chain) -> None:
    at = (IPV4.served[0], PORT)
    told.firewall.namespace.nft(
        "table ip seen {\n set sources {\n type ipv4_addr\n flags dynamic\n }\n"
        " chain forward {\n type filter hook forward priority 0\n"
        ' iifname "vif*" add @sources { ip saddr }\n }\n}\n'
    )
    assert asked(told, IPV4, at, at) == IPV4.uplink
    shown = told.firewall.nft_shows("set", "ip", "seen", "sources")
    assert told.client.ip in shown
    assert VISIBLE not in shown


def test_a_hidden_client_cannot_use_other_addresses(told: Chain) -> None:
    at = (IPV4.served[0], PORT)
    told.client.namespace.nft(UNMASKED)
    with Udp(told.outside, IPV4, *at) as server:
        for source in (told.client.ip, IPV4.clients[1], VISIBLE_GATEWAY):
            send(told.client.namespace, IPV4, at, b"spoofed", source)
        send(told.client.namespace, IPV4, at, b"honest")
        assert server.socket.recvfrom(10)[0] == b"honest"
        assert server.received() == []


def test_a_hidden_client_is_answered_who_its_neighbours_are(told: Chain) -> None:
    told.client.namespace.ip(
        f"neigh del {VISIBLE_GATEWAY} dev eth0", f"neigh flush {VISIBLE_GATEWAY} dev eth0"
    )
    assert reaches(told.client)
    assert PROVIDER_MAC in told.client.ip_shows("neigh", "show", VISIBLE_GATEWAY)


def test_a_hidden_clients_link_goes_and_comes_back(told: Chain) -> None:
    assert told.firewall.unlink(told.client.number).code == 0
    assert "vif5.0" not in told.firewall.ip_shows("link") + told.firewall.ip_shows("netns")
    assert not is_answered(told.client)
    link = downlink(told.client, visible_ip=VISIBLE, visible_gateway=VISIBLE_GATEWAY)
    assert told.firewall.link(link).code == 0
    assert reaches(told.client)
    told.firewall.start_agent()
    assert told.firewall.link(downlink(told.client)).code == 0  # told the truth from now on
    told.client.keys |= client_keys(told.firewall, told.client)
    assert told.client.link(uplink()).code == 0
    assert reaches(told.client)
    assert "vif5.0-nat" not in told.firewall.ip_shows("netns")


def connections(row: Chain) -> list[set[str]]:
    """The numbers of those that each provider knows."""
    listed = [qube.namespace.run("conntrack", "-L", "-o", "id") for qube in (row.net, row.firewall)]
    return [{word for word in text.split() if word.startswith("id=")} for text in listed]


def test_what_is_up_goes_on_while_it_is_set_up_again(joined: Chain, family: Family) -> None:
    at = (family.served[0], PORT)
    listener = joined.outside.socket(family.socket, socket.SOCK_STREAM)
    client = joined.client.namespace.socket(family.socket, socket.SOCK_STREAM)
    with listener, client:
        listener.bind(at)
        listener.listen()
        client.connect(at)
        server, _ = listener.accept()
        with server:
            known = connections(joined)
            for again in range(2):
                for qube, link in (
                    (joined.net, outside_link()),
                    (joined.net, downlink(joined.firewall)),
                    (joined.firewall, uplink()),
                    (joined.firewall, downlink(joined.client)),
                    (joined.client, uplink()),
                ):
                    if again:
                        qube.start_agent()
                    before = qube.ip_shows("-o", "link", "show", "up")
                    assert qube.link(link).code == 0
                    assert qube.ip_shows("-o", "link", "show", "up") == before
                client.sendall(b"still here")
                assert server.recv(100) == b"still here"
                server.sendall(b"me too")
                assert client.recv(100) == b"me too"
                assert connections(joined) == known  # A link that went down loses them.


def test_nothing_passes_a_link_that_was_taken_down(joined: Chain, family: Family) -> None:
    assert reaches(joined.client, family)
    assert joined.firewall.unlink(joined.client.number).code == 0
    assert joined.firewall.unlink(joined.client.number).code == 0  # again
    assert not is_answered(joined.client, family)
    for name in ("allowed", "downstream"):
        shown = joined.firewall.nft_shows("set", family.nft, "qubes", name)
        assert family.clients[0] not in shown
    assert "vif5.0" not in joined.firewall.ip_shows("link")
    assert joined.firewall.link(downlink(joined.client)).code == 0
    assert reaches(joined.client, family)


def test_an_agent_takes_down_what_the_former_set_up(joined: Chain) -> None:
    joined.firewall.start_agent()
    assert joined.firewall.unlink(joined.client.number).code == 0
    assert not is_answered(joined.client)


def test_a_card_may_come_after_its_link(row: Chain) -> None:
    link = downlink(row.client)
    row.firewall.begin_link(link)
    plug(row.firewall, link.mac, row.client, CLIENT_MAC)
    assert row.firewall.answer(ControlType.LINKED, link.number).code == 0
    assert "vif5.0" in row.firewall.ip_shows("link", "show", "group", "2")


def test_two_cards_with_an_address_share_it_until_one_goes(joined: Chain) -> None:
    plug(joined.firewall, SECOND_MAC, joined.sibling, CLIENT_MAC)
    newer = downlink(joined.client, number=7, mac=SECOND_MAC, name="vif7.0")
    assert joined.firewall.link(newer).code == 0
    assert "dev vif7.0" in joined.firewall.ip_shows("route", "get", joined.client.ip)
    assert joined.firewall.unlink(newer.number).code == 0
    assert "dev vif5.0" in joined.firewall.ip_shows("route", "get", joined.client.ip)
    assert joined.client.ip in joined.firewall.nft_shows("set", "ip", "qubes", "downstream")
    assert reaches(joined.client)


def test_connections_of_an_address_are_forgotten_before_it_is_used(joined: Chain) -> None:
    for target in IPV4.served:
        send(joined.client.namespace, IPV4, (target, PORT))
        send(joined.firewall.namespace, IPV4, (target, PORT))
    listed = joined.firewall.namespace.run("conntrack", "-L")
    assert listed.count(f"src={joined.client.ip} ") == len(IPV4.served)
    assert joined.firewall.link(downlink(joined.client, ips=(joined.client.ip,))).code == 0
    listed = joined.firewall.namespace.run("conntrack", "-L")
    assert joined.client.ip not in listed
    assert listed.count(f"src={joined.firewall.ip} ") == len(IPV4.served)


@pytest.mark.parametrize("family_of_client", [4, 6])
def test_forgetting_finds_an_address_at_either_end(joined: Chain, family_of_client: int) -> None:
    family = {4: IPV4, 6: IPV6}[family_of_client]
    joined.firewall.namespace.nft(
        f"add chain {family.nft} qubes in {{ type nat hook prerouting priority -90; }}\n"
        f"add rule {family.nft} qubes in udp dport 99 dnat to {family.clients[0]}\n"
        f"add rule {family.nft} qubes custom-forward accept\n"
    )
    own = joined.firewall.ip if family.version == 4 else joined.firewall.ip6
    send(joined.net.namespace, family, (own, 99))
    send(joined.firewall.namespace, family, (family.clients[0], 98))
    shown = joined.firewall.namespace.run("conntrack", "-L", "-f", f"ipv{family.version}")
    assert shown.count(family.clients[0]) >= 2
    with joined.firewall.namespace.entered():
        conntrack.forget(family.clients[0])
    shown = joined.firewall.namespace.run("conntrack", "-L", "-f", f"ipv{family.version}")
    assert family.clients[0] not in shown


def test_hooks_are_told(row: Chain) -> None:
    log = row.directory / "log"
    hooks = row.firewall.places.config / "network-hooks.d"
    hooks.mkdir()
    for path in (hooks / "50-log", row.firewall.places.config / "qubes-ip-change-hook"):
        path.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {log}\n')
        path.chmod(0o755)
    (hooks / "60-not-executable").write_text("#!/bin/sh\nexit 1\n")
    connect(row.firewall, row.client)
    assert log.read_text() == f"50-log online vif5.0 vif {row.client.ip}\n"
    row.firewall.unlink(row.client.number)
    assert log.read_text().splitlines()[-1] == f"50-log offline vif5.0 vif {row.client.ip}"
    row.firewall.link(uplink())
    deadline = time.monotonic() + TIMEOUT
    while "qubes-ip-change-hook \n" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_link_without_base_rules_fails_and_is_down(joined: Chain) -> None:
    joined.client.places.base_rules.unlink()
    status = joined.client.link(uplink())
    assert status.code != 0
    assert "base rules" in status.text
    assert not is_answered(joined.client)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"ips": ()}, None),
        ({"ips": ("10.137.0.5; flush",)}, None),
        ({"name": "vif99999.0"}, None),
        ({"client_mac": "00:16:3E:5E:6C:00"}, None),
        ({}, "/qubes-netvm-network"),
    ],
)
def test_a_link_that_is_wrong_fails_and_is_down(
    joined: Chain, changes: dict[str, object], key: str | None
) -> None:
    if key:
        del joined.firewall.keys[key]
    assert joined.firewall.link(downlink(joined.client, **changes)).code != 0
    assert not is_answered(joined.client)
    assert joined.client.ip not in joined.firewall.nft_shows("set", "ip", "qubes", "allowed")


def test_no_spoofed_packet_leaks_while_links_come_and_go(row: Chain) -> None:
    at = (IPV4.served[0], PORT)
    source = IPV4.absent
    stop = threading.Event()

    def flood(sender: socket.socket) -> None:
        while not stop.is_set():
            with suppress(OSError):  # There is no way now and then.
                sender.sendto(b"spoofed", at)

    row.client.namespace.nft(UNMASKED)
    with any_source(row.client.namespace, source) as sender, Udp(row.outside, IPV4, *at) as server:
        flooding = threading.Thread(target=flood, args=(sender,))
        flooding.start()
        try:
            for _ in range(5):
                link = downlink(row.client)
                plug(row.firewall, link.mac, row.client, CLIENT_MAC)
                row.client.keys |= client_keys(row.firewall, row.client)
                assert row.client.link(uplink()).code == 0  # It is the first to be up.
                assert row.firewall.link(link).code == 0
                row.client.wait_for_carrier("eth0")
                row.firewall.wait_for_carrier(link.name)
                send(row.client.namespace, IPV4, at, b"honest", row.client.ip)
                assert server.socket.recvfrom(10)[0] == b"honest"
                assert row.firewall.unlink(row.client.number).code == 0
                unplug(row.firewall)
        finally:
            stop.set()
            flooding.join(TIMEOUT)
        assert server.received() == []


def any_source(place: Namespace, source: str) -> socket.socket:
    """A socket whose packets come from an address that is not the sender's."""
    made = place.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
    made.bind((source, 0))
    return made


def test_another_card_with_the_name_of_one_that_went_is_left_alone(joined: Chain) -> None:
    joined.firewall.namespace.ip(
        "link del vif5.0", "link add vif5.0 type veth peer name other", "link set vif5.0 up"
    )
    assert joined.firewall.unlink(joined.client.number).code == 0
    assert "vif5.0" in joined.firewall.ip_shows("-o", "link", "show", "up")
    assert joined.client.ip not in joined.firewall.nft_shows("set", "ip", "qubes", "allowed")


def test_a_name_that_is_taken_is_given_free(row: Chain) -> None:
    row.firewall.namespace.ip("link add vif5.0 type veth peer name other", "link set vif5.0 up")
    connect(row.firewall, row.client)
    assert reaches(row.client)
    shown = row.firewall.ip_shows("-br", "link")
    assert len([line for line in shown.splitlines() if line.startswith("off")]) == 1
