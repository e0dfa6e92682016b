"""Base rules of every qube, by what comes through them (network-firewall.md section 6)."""

import socket

import pytest

from insula.guest.firewall import tables
from tests.net.conftest import BASE_RULES
from tests.net.world import (
    BOTH,
    IPV4,
    IPV6,
    Family,
    Udp,
    World,
    refused,
    send,
    servers,
    world,
)


@pytest.fixture
def open_net(net: World) -> World:
    """A provider that does not look at its clients' rules."""
    with net.provider.entered():
        tables.none_enforced()
    return net


def test_no_client_passes_before_rules_say_so(net: World, family: Family) -> None:
    with servers(net.outside, family, 80) as outside:
        for number, client in enumerate(net.clients):
            for at in outside:
                send(client, family, at, f"client {number}".encode())
        for at in outside:
            send(net.provider, family, at, b"provider")
        net.settled()
        for server in outside.values():
            assert server.received() == [(b"provider", family.uplink)]


def test_what_a_client_sends_looks_like_its_providers(open_net: World, family: Family) -> None:
    with servers(open_net.outside, family, 80) as outside:
        at, server = next(iter(outside.items()))
        with open_net.clients[0].socket(family.socket, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"there and back", at)
            assert server.received() == [(b"there and back", family.uplink)]
            sender.sendto(b"there and back", at)
            server.answer()
            assert sender.recv(100) == b"there and back"


def test_spoofed_sources_are_dropped(open_net: World, family: Family) -> None:
    first, second = open_net.clients
    with servers(open_net.outside, family, 80) as outside:
        at, server = next(iter(outside.items()))
        for source in (family.clients[1], family.absent, family.outside, family.provider):
            send(first, family, at, b"spoofed", source)
        send(second, family, at, b"spoofed", family.clients[0])
        send(first, family, at, b"true")
        open_net.settled()
        assert [data for data, _ in server.received()] == [b"true"]


def test_an_address_that_was_not_admitted_is_spoofed() -> None:
    with world() as made:
        made.provider.run("nft", "-f", str(BASE_RULES))
        made.provider.nft(tables.removed())
        made.admit(0, IPV4)
        for family, expected in ((IPV4, 1), (IPV6, 0)):
            with servers(made.outside, family, 80) as outside:
                at, server = next(iter(outside.items()))
                send(made.clients[0], family, at)
                made.settled()
                assert len(server.received()) == expected


def test_a_clients_address_is_not_taken_from_elsewhere(open_net: World, family: Family) -> None:
    with Udp(open_net.provider, family, family.uplink, 80) as server:
        open_net.provider.nft(f"add rule {family.nft} qubes custom-input udp dport 80 accept")
        send(open_net.outside, family, server.at, b"spoofed", family.clients[0])
        send(open_net.outside, family, server.at, b"true")
        assert [data for data, _ in server.received()] == [b"true"]


def test_siblings_do_not_reach_each_other_nor_is_a_client_reached(
    open_net: World, family: Family
) -> None:
    first, second = open_net.clients
    with Udp(second, family, family.clients[1], 80) as server:
        send(first, family, server.at)
        send(open_net.outside, family, server.at)
        open_net.settled()
        assert server.received() == []
        assert not open_net.pinged(first, family, family.clients[1])
        # The way is there: nothing but the rule that isolates them was in it.
        open_net.provider.nft(f"add rule {family.nft} qubes custom-forward udp dport 80 accept")
        send(first, family, server.at)
        send(open_net.outside, family, server.at)
        open_net.settled()
        assert [sender for _, sender in server.received()] == [family.clients[0], family.outside]


def test_a_provider_serves_its_clients_nothing_but_icmp(open_net: World, family: Family) -> None:
    client = open_net.clients[0]
    with Udp(open_net.provider, family, family.provider, 80) as server:
        assert refused(client, family, server.at)
        assert open_net.pinged(client, family, family.provider)
        assert server.received() == []


def test_a_qube_accepts_no_connection_from_outside(open_net: World, family: Family) -> None:
    with Udp(open_net.provider, family, family.uplink, 80) as server:
        send(open_net.outside, family, server.at)
        send(open_net.provider, family, server.at, b"own")
        open_net.settled()
        assert [data for data, _ in server.received()] == [b"own"]
        assert open_net.pinged(open_net.outside, family, family.uplink) == (family is IPV6)


def test_loading_the_rules_anew_leaves_nothing_twice(net: World) -> None:
    before = net.provider.run("nft", "--stateless", "list", "ruleset")
    net.provider.run("nft", "-f", str(BASE_RULES))
    for number in range(2):
        net.admit(number, *BOTH)
    assert net.provider.run("nft", "--stateless", "list", "ruleset") == before


def test_the_program_closes_the_tables_as_the_boot_does(net: World) -> None:
    tables_of = [("list", "table", family.nft, tables.TABLE) for family in BOTH]
    before = [net.provider.run("nft", *words) for words in tables_of]
    with net.provider.entered():
        tables.apply(tables.closed())
    assert [net.provider.run("nft", *words) for words in tables_of] == before
