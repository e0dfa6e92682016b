"""The program qubes-firewall at work: changes, names, its ends (network-firewall.md section 8)."""

import itertools
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

import pytest

from insula.guest.conntrack import attributes
from insula.guest.firewall import tables
from tests.net.enforced import Provider, Resolver, until
from tests.net.world import BOTH, IPV4, IPV6, TIMEOUT, Family, Udp, World, send, servers

NAME, OTHER_NAME = "server.example", "other.example"


class Flow:
    """A UDP connection of a client whose packets are counted at its end."""

    def __init__(self, net: World, family: Family, client: int, server: Udp) -> None:
        self.net, self.server = net, server
        self.socket = net.clients[client].socket(family.socket, socket.SOCK_DGRAM)
        self.socket.connect(server.at)
        self.socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def passes(self) -> bool:
        """Whether a packet arrives."""
        try:
            self.socket.send(b"on its way")
        except OSError:  # The last one was rejected, which is told with the next.
            self.socket.send(b"on its way")
        self.net.settled()
        return bool(self.server.received())

    def establish(self) -> None:
        """Have it go both ways."""
        self.socket.send(b"there")
        assert self.server.answer() == b"there"
        self.net.settled()
        assert self.socket.recv(10) == b"there"


@contextmanager
def flows(net: World, family: Family, *ports: int) -> Iterator[dict[tuple[int, int], Flow]]:
    """Flows of the first client, by server and port."""
    with ExitStack() as stack, servers(net.outside, family, *ports) as outside:
        made = {}
        for (address, port), server in outside.items():
            flow = stack.enter_context(Flow(net, family, 0, server))
            made[family.served.index(address), port] = flow
        yield made


def test_the_example_of_the_specification(enforcing: Provider, resolver: Resolver) -> None:
    resolver.addresses["example.org"] = ["198.51.100.7", "2001:db8:1::7"]
    enforcing.use_resolver(resolver.at, "10.139.1.1", "10.139.1.2")
    rules = [
        "action=accept dsthost=192.0.2.10 proto=tcp dstports=443",
        "action=accept dsthost=example.org proto=tcp dstports=80",
        "action=accept specialtarget=dns",
    ]
    for family, address in ((IPV4, "10.137.0.9"), (IPV6, "fd09:24ef:4179::a89:9")):
        enforcing.enforce(address, rules)
        ip, reject = ("ip", "icmp") if family.version == 4 else ("ip6", "icmpv6")
        name = tables.chain_of(address)
        named = "198.51.100.7" if family.version == 4 else "2001:db8:1::7"
        assert enforcing.chain(family, name) == [
            *["ip daddr 192.0.2.10 tcp dport 443 accept"] * (family is IPV4),
            f"{ip} daddr {named} tcp dport 80 accept",
            f"{ip} daddr @dns-addr tcp dport 53 accept",
            f"{ip} daddr @dns-addr udp dport 53 accept",
            f"reject with {reject} {'13' if family is IPV4 else '1'}",
        ]
        assert enforcing.chain(family, "qubes-forward") == [f"{ip} saddr {address} jump {name}"]
        assert enforcing.read(f"/dns/{address}/example.org") == named


def test_connections_to_what_is_forbidden_now_end_at_once(
    enforcing: Provider, net: World, family: Family
) -> None:
    client = family.clients[0]
    enforcing.enforce(client, ["action=accept"])
    with flows(net, family, 9, 80, 1000) as found:
        for flow in found.values():
            flow.establish()
        # As text, 1000 would lie between these ports.
        enforcing.enforce(
            client, [f"action=accept dsthost={family.served[0]} proto=udp dstports=9-80"]
        )
        passing = {at for at, flow in found.items() if flow.passes()}
        assert passing == {(0, 9), (0, 80)}
        enforcing.enforce(client, ["action=drop"])
        assert not any(flow.passes() for flow in found.values())


def test_a_tcp_connection_goes_on_or_ends_with_the_rule(
    enforcing: Provider, net: World, family: Family
) -> None:
    client, target = family.clients[0], (family.served[0], 80)
    enforcing.enforce(client, ["action=accept"])
    with ExitStack() as stack:
        listener = stack.enter_context(net.outside.socket(family.socket, socket.SOCK_STREAM))
        listener.bind(target)
        listener.listen()
        sender = stack.enter_context(net.clients[0].socket(family.socket, socket.SOCK_STREAM))
        sender.connect(target)
        receiver = stack.enter_context(listener.accept()[0])
        receiver.settimeout(TIMEOUT)
        sender.sendall(b"first")
        assert receiver.recv(10) == b"first"
        enforcing.enforce(client, [f"action=accept dsthost={family.served[0]} proto=tcp"])
        sender.sendall(b"second")
        assert receiver.recv(10) == b"second"
        enforcing.enforce(client, ["action=accept proto=tcp dstports=443"])
        sender.sendall(b"third")
        net.settled()
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(10)


def test_connections_of_other_clients_go_on(
    enforcing: Provider, net: World, family: Family
) -> None:
    for client in family.clients:
        enforcing.enforce(client, ["action=accept"])
    with (
        Udp(net.outside, family, family.served[0], 80) as server,
        Flow(net, family, 0, server) as mine,
        Flow(net, family, 1, server) as other,
    ):
        for flow in (mine, other):
            flow.establish()
        connections = len(_connections(net, family, family.clients[1]))
        enforcing.enforce(family.clients[0], ["action=drop"])
        assert _connections(net, family, family.clients[0]) == []
        assert len(_connections(net, family, family.clients[1])) == connections
        assert not mine.passes()
        assert other.passes()


@pytest.mark.parametrize(
    "entries",
    [
        [("0000", "action=accept")],
        [("0000", "action=accept"), ("policy", "allow")],
        [("0000", "proto=tcp"), ("policy", "drop")],
        [("0000", "action=accept"), ("0001", "action=accept dpi=http"), ("policy", "drop")],
        [("0000", "action=accept expire=9999999999"), ("policy", "drop")],
        [("0000", "action=accept"), ("comment", "action=accept"), ("policy", "drop")],
        [("0000", "action=accept"), ("0001", "action=accept dsthost=OTHER"), ("policy", "drop")],
        [
            ("0000", "action=accept"),
            ("0001", "action=accept dsthost=gone.example"),
            ("policy", "drop"),
        ],
    ],
    ids=["no policy", "policy", "action", "key", "expire", "number", "family", "name"],
)
def test_a_client_with_rules_that_are_none_is_blocked(
    entries: list[tuple[str, str]], enforcing: Provider, net: World, family: Family
) -> None:
    client = family.clients[0]
    other = next(one for one in BOTH if one is not family)
    enforcing.enforce(client, ["action=accept"])
    with flows(net, family, 80) as found:
        flow = next(iter(found.values()))
        flow.establish()
        before = enforcing.handled(client)
        path = f"/qubes-firewall/{client}"
        told = [
            (f"{path}/{key}", value.replace("OTHER", other.served[0])) for key, value in entries
        ]
        enforcing.write(client, [*told, (path, "")])
        until(lambda: enforcing.handled(client) > before)
        assert not any(flow.passes() for flow in found.values())
        enforcing.enforce(client, ["action=accept"])
        assert flow.passes()


def test_rules_are_in_force_within_a_second(
    enforcing: Provider, net: World, family: Family
) -> None:
    client = family.clients[0]
    enforcing.enforce(client, ["action=accept"])
    with flows(net, family, 80) as found:
        flow = next(iter(found.values()))
        for rules, passing in ((["action=drop"], False), (["action=accept"], True)) * 3:
            began = time.monotonic()
            enforcing.publish(client, rules)
            until(lambda passing=passing: flow.passes() == passing)  # type: ignore[misc]
            assert time.monotonic() - began < 1


def test_what_an_unanswered_name_forbids_or_allows_waits_and_the_rest_does_not(
    enforcing: Provider, resolver: Resolver, net: World, family: Family
) -> None:
    client, known = family.clients[0], [one.served[1] for one in BOTH]
    enforcing.enforce(client, ["action=accept"])
    resolver.silent = True
    with flows(net, family, 80) as found:
        for flow in found.values():
            flow.establish()
        handled = enforcing.handled(client)
        enforcing.publish(
            client,
            [f"action=drop dsthost={family.served[2]}", f"action=accept dsthost={NAME}"],
        )
        # Forbidden whatever the name stands for. The others may be it: they are not ended.
        until(lambda: not found[2, 80].passes())
        assert found[1, 80].passes()
        assert enforcing.handled(client) == handled
        until(lambda: enforcing.handled(client) > handled)
        assert not any(flow.passes() for flow in found.values())
        resolver.addresses[NAME] = known
        resolver.silent = False
        enforcing.enforce(client, [f"action=accept dsthost={NAME}"])
        assert [flow.passes() for flow in found.values()] == [False, True, False]


def test_a_name_that_is_answered_later_opens_what_it_blocked(
    provider: Provider, resolver: Resolver, net: World, family: Family
) -> None:
    provider.start(again=0.2)
    client = family.clients[0]
    with flows(net, family, 80) as found:
        provider.enforce(client, [f"action=accept dsthost={NAME}", "action=accept"])
        assert not any(flow.passes() for flow in found.values())
        resolver.addresses[NAME] = [family.served[1]]
        until(found[1, 80].passes)
        assert found[0, 80].passes()


def test_names_are_looked_up_again_and_connections_go_on(
    provider: Provider, resolver: Resolver, net: World, family: Family
) -> None:
    provider.start(refresh=0.2)
    client = family.clients[0]
    resolver.addresses[NAME] = [family.served[0]]
    provider.enforce(client, [f"action=accept dsthost={NAME}"])
    with flows(net, family, 80, 81) as found:
        found[0, 80].establish()
        assert not found[1, 80].passes()
        resolver.addresses[NAME] = [family.served[1]]
        until(found[1, 80].passes)
        assert found[0, 80].passes()  # as it was established
        assert not found[0, 81].passes()
        until(lambda: provider.read(f"/dns/{client}/{NAME}") == family.served[1])
        # What cannot be looked up stays what it was.
        asked = resolver.asked
        del resolver.addresses[NAME]
        until(lambda: resolver.asked > asked + 2)
        assert found[1, 81].passes()
        assert provider.handled(client) == 1


def test_a_reload_takes_everything_anew(
    enforcing: Provider, resolver: Resolver, net: World, family: Family
) -> None:
    client = family.clients[0]
    resolver.addresses[NAME] = [family.served[0]]
    enforcing.enforce(client, [f"action=accept dsthost={NAME}"])
    with flows(net, family, 80) as found:
        found[0, 80].establish()
        resolver.addresses[NAME] = [family.served[1]]
        handled = enforcing.handled(client)
        assert enforcing.process is not None
        enforcing.process.send_signal(signal.SIGHUP)
        enforcing.told("RELOADING=1\nMONOTONIC_USEC=")
        enforcing.told("READY=1")
        until(lambda: enforcing.handled(client) > handled)
        assert [flow.passes() for flow in found.values()] == [False, True, False]


def test_addresses_of_names_are_told_and_forgotten(
    enforcing: Provider, resolver: Resolver, family: Family
) -> None:
    client = family.clients[0]
    long = ".".join(["a" * 30] * 2)
    for name in (NAME, OTHER_NAME, long):
        resolver.addresses[name] = [family.served[0], family.served[1]]
    both = " ".join(sorted(family.served[:2]))
    enforcing.enforce(
        client, [f"action=accept dsthost={name}" for name in (NAME, OTHER_NAME, long)]
    )
    assert enforcing.read(f"/dns/{client}/{NAME}") == both
    assert enforcing.read(f"/dns/{client}/{OTHER_NAME}") == both
    enforcing.enforce(client, [f"action=accept dsthost={OTHER_NAME}"])
    assert enforcing.read(f"/dns/{client}/{NAME}") is None
    assert enforcing.read(f"/dns/{client}/{OTHER_NAME}") == both
    assert enforcing.handled(client) == 2


def test_a_client_that_is_gone_leaves_no_chain(
    provider: Provider, net: World, family: Family
) -> None:
    provider.start(gone=0.1)
    gone, stays = family.clients
    for client in (gone, stays):
        provider.enforce(client, ["action=accept"])
    with (
        Udp(net.outside, family, family.served[0], 80) as server,
        Flow(net, family, 0, server) as first,
        Flow(net, family, 1, server) as second,
    ):
        for flow in (first, second):
            flow.establish()
        provider.withdraw(gone)
        chain = f"{family.nft} saddr {stays} jump {tables.chain_of(stays)}"
        until(lambda: provider.chain(family, "qubes-forward") == [chain])
        assert tables.chain_of(gone) not in net.provider.run("nft", "list", "ruleset")
        until(lambda: not first.passes())
        assert second.passes()
        provider.enforce(gone, ["action=accept"])
        assert first.passes()


def test_rules_that_are_written_anew_end_no_connection(
    enforcing: Provider, net: World, family: Family
) -> None:
    client = family.clients[0]
    enforcing.enforce(client, ["action=accept"])
    with flows(net, family, 80) as found:
        flow = next(iter(found.values()))
        flow.establish()
        for _ in range(5):
            enforcing.withdraw(client)
            handled = enforcing.handled(client)
            enforcing.publish(client, ["action=accept"])
            until(lambda handled=handled: enforcing.handled(client) > handled)  # type: ignore[misc]
        assert len(_connections(net, family, client)) == 1


def test_clients_that_are_absent_are_not_impersonated_nor_reached(
    enforcing: Provider, net: World, family: Family
) -> None:
    nft = net.provider.nft
    nft(f"add rule {family.nft} qubes custom-input udp dport 80 accept")
    key = "/connected-ips" if family.version == 4 else "/connected-ips6"
    listed = [*family.clients, family.absent]
    # What is outside pretends to be a client that is absent.
    nodad = "nodad" if family.version == 6 else ""
    net.outside.ip(f"addr add {family.absent}/{family.length} dev lo {nodad}")
    with (
        Udp(net.provider, family, family.uplink, 80) as server,
        Udp(net.outside, family, family.absent, 80) as astray,
    ):
        send(net.outside, family, server.at, b"spoofed", family.absent)
        send(net.provider, family, astray.at, b"astray")
        net.settled()
        assert server.received()
        assert astray.received()
        enforcing.dom0.write(key, " ".join(listed).encode())
        until(lambda: enforcing.chain(family, "postrouting"))
        send(net.outside, family, server.at, b"spoofed", family.absent)
        net.settled()
        assert not server.received()
        with pytest.raises(OSError, match="not permitted"):
            send(net.provider, family, astray.at, b"astray")
        net.settled()
        assert not astray.received()
        enforcing.dom0.write(key, b"")
        until(lambda: not enforcing.chain(family, "prerouting"))
        assert not enforcing.chain(family, "postrouting")


def test_a_thousand_rules_are_one_quick_transaction(enforcing: Provider, net: World) -> None:
    rules = [
        f"action=accept dsthost=10.{number >> 8}.{number & 255}.0/24 proto=tcp dstports={number}"
        for number in range(1, 1000)
    ]
    client = IPV4.clients[0]
    enforcing.enforce(client, ["action=accept"])
    before = _generation(net)
    enforcing.publish(client, [*rules, "action=accept proto=udp"])
    began = time.monotonic()
    until(lambda: enforcing.handled(client) == 2)
    took = time.monotonic() - began
    print(f"1000 rules in {took:.3f} s")
    assert took < 2
    assert _generation(net) == before + 1
    assert len(enforcing.chain(IPV4, tables.chain_of(client))) == 1001


def test_nothing_passes_that_is_forbidden_while_the_program_is_restarted(
    provider: Provider, net: World, family: Family
) -> None:
    """Clients flood what they may not reach, from addresses that are theirs and others."""
    provider.start()
    allowed, forbidden = 80, 81
    rules = [f"action=accept proto=udp dstports={allowed}"]
    provider.enforce(family.clients[0], rules)
    over, sent = threading.Event(), itertools.count()
    with servers(net.outside, family, allowed, forbidden) as outside:
        targets = [at for at in outside if at[1] == forbidden]
        floods = [
            threading.Thread(target=_flood, args=(net, family, targets, over, sent)),
            threading.Thread(target=_flood_of_one_without, args=(net, family, outside, over, sent)),
        ]
        for flood in floods:
            flood.start()
        try:
            for how in (signal.SIGTERM, signal.SIGKILL) * 3:
                at_least = next(sent) + 500
                until(lambda at_least=at_least: next(sent) > at_least)  # type: ignore[misc]
                provider.stop(how)
                provider.start()
                provider.enforce(family.clients[0], rules)
        finally:
            over.set()
            for flood in floods:
                flood.join()
        net.settled()
        assert [server.received() for server in outside.values()] == [[]] * len(outside)
        assert next(sent) > 3000
        # The way was open all the while for what is allowed.
        with Flow(net, family, 0, outside[family.served[0], allowed]) as flow:
            assert flow.passes()


def _flood(
    net: World,
    family: Family,
    targets: list[tuple[str, int]],
    over: threading.Event,
    sent: "itertools.count[int]",
) -> None:
    """Send what rules forbid, now from a new port, now from another's address."""
    while not over.is_set():
        for at in targets:
            send(net.clients[0], family, at, b"forbidden")
            send(net.clients[0], family, at, b"spoofed", source=family.clients[1])
            next(sent)


def _flood_of_one_without(
    net: World,
    family: Family,
    targets: dict[tuple[str, int], Udp],
    over: threading.Event,
    sent: "itertools.count[int]",
) -> None:
    """Send as a client that has no rules yet, to what another may reach."""
    while not over.is_set():
        for at in targets:
            send(net.clients[1], family, at, b"of one without rules")
            next(sent)


def test_nobody_begins_anything_while_the_program_is_stopped(
    enforcing: Provider, net: World, family: Family
) -> None:
    client = family.clients[0]
    enforcing.enforce(client, ["action=accept"])
    with flows(net, family, 80) as found:
        found[0, 80].establish()
        assert enforcing.stop() == 0
        assert not found[1, 80].passes()
        assert found[0, 80].passes()
        enforcing.publish(client, ["action=drop"])
        enforcing.start()
        until(lambda: not found[0, 80].passes())


def test_known_clients_keep_their_rules_when_the_program_is_killed(
    enforcing: Provider, net: World, family: Family
) -> None:
    enforcing.enforce(family.clients[0], [f"action=accept dsthost={family.served[0]}"])
    assert enforcing.stop(signal.SIGKILL) == -signal.SIGKILL
    with flows(net, family, 80) as found:
        assert [flow.passes() for flow in found.values()] == [True, False, False]
    enforcing.publish(family.clients[1], ["action=accept"])
    with (
        Udp(net.outside, family, family.served[0], 80) as server,
        Flow(net, family, 1, server) as flow,
    ):
        assert not flow.passes()
        enforcing.start()
        until(flow.passes)


def test_a_database_that_comes_back_empty_changes_nothing(
    enforcing: Provider, net: World, family: Family
) -> None:
    client = family.clients[0]
    enforcing.enforce(client, ["action=accept"])
    with flows(net, family, 80) as found:
        found[0, 80].establish()
        enforcing.restart_database()
        assert found[1, 80].passes()
        assert found[0, 80].passes()
        enforcing.enforce(client, [f"action=accept dsthost={family.served[1]}"])
        assert [flow.passes() for flow in found.values()] == [False, True, False]


def _connections(net: World, family: Family, client: str) -> list[str]:
    kind = "ipv4" if family.version == 4 else "ipv6"
    return net.provider.run("conntrack", "-L", "-f", kind, "-s", client).splitlines()


def _generation(net: World) -> int:
    """How many transactions there were (NFT_MSG_GETGEN)."""
    with net.provider.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
        kernel.send(struct.pack("=IHHIIBBH", 20, 0x0A10, 1, 0, 0, 0, 0, 0))
        answer = kernel.recv(1000)
    (number,) = struct.unpack("!I", attributes(answer[20:])[1])
    return int(number)
