"""Each kind of rule, by what then arrives at servers outside (network-firewall.md section 8)."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.net.enforced import Provider, Resolver
from tests.net.namespaces import Namespace
from tests.net.world import IPV4, IPV6, Family, Udp, World, refused, send

PORTS = (53, 80, 443)
SERVERS = (0, 1)
NAME = "server.example"
DNS = 2  # the server that is the provider's resolver
Reached = set[tuple[str, int, int]]  # protocol, server, port


class Tcp:
    """A server that counts the connections it accepts."""

    def __init__(self, place: Namespace, family: Family, address: str, port: int) -> None:
        self.socket = place.socket(family.socket, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, port))
        self.socket.listen()
        self.socket.setblocking(False)

    def accepted(self) -> int:
        count = 0
        while True:
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                return count
            connection.close()
            count += 1


class Servers:
    """Servers on every port, and what of a client reaches them."""

    def __init__(self, net: World, family: Family, stack: ExitStack) -> None:
        self.net, self.family = net, family
        self.udp, self.tcp = {}, {}
        for at, address in enumerate(family.served):
            for port in PORTS:
                taken = family.version == 4 and at == DNS and port == 53
                if not taken:  # The resolver answers there itself.
                    udp = Udp(net.outside, family, address, port)
                    self.udp[at, port] = stack.enter_context(udp)
                tcp = Tcp(net.outside, family, address, port)
                stack.callback(tcp.socket.close)
                self.tcp[at, port] = tcp

    def reached(self, client: Namespace) -> Reached:
        """What arrives of a packet to each server; the client is told of each that does not."""
        found: Reached = set()
        for (at, port), udp in self.udp.items():
            send(client, self.family, udp.at)
            if udp.received():
                found.add(("udp", at, port))
            else:
                assert refused(client, self.family, udp.at)
        for (at, port), tcp in self.tcp.items():
            with client.socket(self.family.socket, socket.SOCK_STREAM) as connection:
                connection.setblocking(False)
                connection.connect_ex((self.family.served[at], port))
                self.net.settled()
                if tcp.accepted():
                    found.add(("tcp", at, port))
        for at in SERVERS:
            if self.net.pinged(client, self.family, self.family.served[at]):
                found.add(("icmp", at, 0))
        return found


@pytest.fixture
def outside(net: World, family: Family) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(net, family, stack)


TCP = {("tcp", at, port) for at in (*SERVERS, DNS) for port in PORTS}
UDP = {("udp", at, port) for _, at, port in TCP}
ICMP = {("icmp", at, 0) for at in SERVERS}
ALL = TCP | UDP | ICMP


def only(at: int, *ports: int) -> Reached:
    return {found for found in ALL if found[1] == at and (not ports or found[2] in ports)}


CASES: dict[str, tuple[list[str], Reached]] = {
    "accept": (["action=accept"], ALL),
    "drop": (["action=drop"], set()),
    "nothing": ([], set()),
    "tcp": (["action=accept proto=tcp"], TCP),
    "udp": (["action=accept proto=udp"], UDP),
    "icmp": (["action=accept proto=icmp"], ICMP),
    "echo": (["action=accept proto=icmp icmptype=ECHO"], ICMP),
    "no echo": (["action=accept proto=icmp icmptype=3"], set()),
    "echo dropped": (["action=drop proto=icmp icmptype=ECHO", "action=accept"], ALL - ICMP),
    "address": (["action=accept dsthost=FIRST"], only(0)),
    "address dropped": (["action=drop dsthost=FIRST", "action=accept"], ALL - only(0)),
    "network": (["action=accept dsthost=NETWORK"], only(0) | only(1)),
    "name": ([f"action=accept dsthost={NAME}"], only(1)),
    "name dropped": ([f"action=drop dsthost={NAME}", "action=accept"], ALL - only(1)),
    "name and port": ([f"action=accept dsthost={NAME} proto=tcp dstports=80"], {("tcp", 1, 80)}),
    "port": (["action=accept proto=tcp dstports=80"], {found for found in TCP if found[2] == 80}),
    "ports": (
        ["action=accept proto=udp dstports=54-443"],
        {found for found in UDP if found[2] in (80, 443)},
    ),
    "port dropped": (
        ["action=drop proto=tcp dstports=80", "action=accept"],
        ALL - {found for found in TCP if found[2] == 80},
    ),
    "dns": (["action=accept specialtarget=dns"], only(DNS, 53)),
    "dns by udp": (["action=accept specialtarget=dns proto=udp"], only(DNS, 53) & UDP),
    "dns by icmp": (["action=accept specialtarget=dns proto=icmp"], set()),
    "dns elsewhere": (["action=accept specialtarget=dns proto=tcp dstports=80"], set()),
    "dns dropped": (["action=drop specialtarget=dns", "action=accept"], ALL - only(DNS, 53)),
    "order": (
        ["action=accept dsthost=FIRST proto=tcp", "action=drop dsthost=FIRST", "action=accept"],
        ALL - only(0) | (only(0) & TCP),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_rule_lets_through_what_it_says(
    case: str, enforcing: Provider, outside: Servers, resolver: Resolver, family: Family
) -> None:
    enforcing.use_resolver(IPV4.served[DNS], IPV6.served[DNS])
    resolver.addresses[NAME] = [IPV4.served[1], IPV6.served[1]]
    rules, expected = CASES[case]
    told = [
        rule.replace("ECHO", "8" if family.version == 4 else "128")
        .replace("FIRST", family.served[0])
        .replace("NETWORK", "198.51.100.0/24" if family.version == 4 else "2001:db8:1::/48")
        for rule in rules
    ]
    enforcing.enforce(family.clients[0], told)
    if family.version == 4:
        expected = expected - {("udp", DNS, 53)}
    assert outside.reached(outside.net.clients[0]) == expected
    # What one may, the other may not; it has no rules.
    assert not outside.udp[0, 80].received()
    assert nothing_passes(outside)


def nothing_passes(outside: Servers) -> bool:
    """Whether the client that has no rules reaches nothing, and is told nothing either."""
    client, family = outside.net.clients[1], outside.family
    with client.socket(family.socket, socket.SOCK_DGRAM) as sender:
        for udp in outside.udp.values():
            sender.sendto(b"from a client without rules", udp.at)
    outside.net.settled()
    return not any(udp.received() for udp in outside.udp.values())
