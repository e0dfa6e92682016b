"""What clients may reach, as far as it needs no kernel (network-firewall.md sections 7 to 9)."""

import ipaddress
import itertools
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.guest import conntrack
from insula.guest.commands.qubesdb import Database, NotFoundError
from insula.guest.conntrack import Connections
from insula.guest.firewall import hooks, tables
from insula.guest.firewall.clients import (
    BadRulesError,
    Client,
    Flow,
    Unknown,
    accepted,
    matches_of,
    parse,
)
from insula.guest.firewall.enforcing import Firewall, Times
from insula.guest.firewall.names import parse_resolvers
from insula.protocol.firewall import PROTOCOLS, Rule, parse_rule, published

CLIENTS = {4: "10.137.0.9", 6: "fd09:24ef:4179::a89:9"}
HOSTS = {
    4: ("192.0.2.1", "192.0.2.2", "198.51.100.7"),
    6: ("2001:db8::1", "2001:db8::2", "2001:db8:1::7"),
}
NETWORKS = {4: ("192.0.2.0/24", "0.0.0.0/0"), 6: ("2001:db8::/64", "::/0")}
RESOLVERS = {
    4: frozenset({ipaddress.ip_address("192.0.2.2")}),
    6: frozenset[ipaddress.IPv6Address](),
}
NUMBERS = {4: {"tcp": 6, "udp": 17, "icmp": 1}, 6: {"tcp": 6, "udp": 17, "icmp": 58}}
PORTS = (9, 53, 80, 1000)


@st.composite
def rules(draw: st.DrawFn, version: int) -> Rule:
    proto = draw(st.sampled_from((None, *PROTOCOLS)))
    ports = None
    if proto in ("tcp", "udp") and draw(st.booleans()):
        ports = tuple(sorted(draw(st.tuples(*[st.sampled_from(PORTS)] * 2))))
    host = draw(st.sampled_from((None, *HOSTS[version], *NETWORKS[version], "one", "other")))
    words = [f"action={draw(st.sampled_from(('accept', 'drop')))}"]
    words += [f"dsthost={host}"] * (host is not None) + [f"proto={proto}"] * (proto is not None)
    words += ["specialtarget=dns"] * draw(st.booleans())
    words += [f"dstports={ports[0]}-{ports[1]}"] if ports else []
    if proto == "icmp" and draw(st.booleans()):
        words.append(f"icmptype={draw(st.sampled_from((8, 128)))}")
    return parse_rule(" ".join(words))


@st.composite
def clients(draw: st.DrawFn) -> Client:
    version = draw(st.sampled_from((4, 6)))
    chosen = tuple(draw(st.lists(rules(version), max_size=6)))
    return Client(CLIENTS[version], chosen, draw(st.sampled_from(("accept", "drop"))))


def names(version: int) -> st.SearchStrategy[dict[str, frozenset[str]]]:
    addresses = st.frozensets(st.sampled_from(HOSTS[version]), min_size=1)
    return st.dictionaries(st.sampled_from(("one", "other")), addresses)


def all_flows(version: int) -> list[Flow]:
    found = []
    for host, (proto, number) in itertools.product(HOSTS[version], NUMBERS[version].items()):
        target = ipaddress.ip_address(host)
        if proto == "icmp":
            found += [Flow(protocol=number, target=target, icmp_type=kind) for kind in (8, 128)]
        else:
            found += [Flow(protocol=number, target=target, port=port) for port in PORTS]
    return [*found, Flow(protocol=132, target=ipaddress.ip_address(HOSTS[version][0]))]


def expected(client: Client, known: dict[str, frozenset[str]], flow: Flow) -> bool:
    """What the rules say of a connection, by their own words."""
    version = client.version
    proto = {number: name for name, number in NUMBERS[version].items()}.get(flow.protocol)
    for rule in client.rules:
        fits = rule.proto in (None, proto)
        if rule.host is not None:
            key, text = rule.host
            hosts = known[text] if key == "dsthost" else {text}
            fits &= any(flow.target in ipaddress.ip_network(host, strict=False) for host in hosts)
        if rule.ports is not None:
            fits &= flow.port is not None and rule.ports[0] <= flow.port <= rule.ports[1]
        if rule.icmptype is not None:
            fits &= rule.icmptype == flow.icmp_type
        if rule.specialtarget == "dns":
            fits &= flow.port == 53 and flow.target in RESOLVERS[version]
        if fits:
            return rule.action == "accept"
    return client.policy == "accept"


@given(client=clients())
def test_matches_accept_what_the_rules_say(client: Client) -> None:
    hosts = HOSTS[client.version]
    known = {"one": frozenset({hosts[0]}), "other": frozenset(hosts[1:])}
    matches = matches_of(client, known, Unknown.ERROR)
    for flow in all_flows(client.version):
        found = accepted(matches, flow, RESOLVERS[client.version])
        assert found == expected(client, known, flow), flow


@given(data=st.data(), client=clients())
def test_until_names_are_known_no_more_is_accepted_and_no_less_is_kept(
    data: st.DataObject, client: Client
) -> None:
    known = data.draw(names(client.version))
    addresses = st.frozensets(st.sampled_from(HOSTS[client.version]), min_size=1)
    late = {name: data.draw(addresses) for name in ("one", "other")}
    whole = matches_of(client, {**late, **known}, Unknown.ERROR)
    closed = matches_of(client, known, Unknown.CLOSED)
    opened = matches_of(client, known, Unknown.OPEN)
    resolvers = RESOLVERS[client.version]
    for flow in all_flows(client.version):
        assert accepted(closed, flow, resolvers) <= accepted(whole, flow, resolvers)
        assert accepted(whole, flow, resolvers) <= accepted(opened, flow, resolvers)


@given(client=clients())
def test_a_name_without_address_is_an_error(client: Client) -> None:
    if client.names:
        with pytest.raises(BadRulesError, match="has no address"):
            matches_of(client, {}, Unknown.ERROR)
    else:
        assert matches_of(client, {}, Unknown.ERROR) == matches_of(client, {}, Unknown.OPEN)


@given(version=st.sampled_from((4, 6)), data=st.data())
def test_what_dom0_publishes_is_read(version: int, data: st.DataObject) -> None:
    of_both = st.one_of(rules(4), rules(6))
    told = data.draw(st.lists(of_both, max_size=5))
    address = CLIENTS[version]
    path = f"/qubes-firewall/{address}"
    entries = dict(published(address, told, 0.0))
    del entries[path]
    client = parse(address, {key.removeprefix(f"{path}/"): text for key, text in entries.items()})
    other = "dst6" if version == 4 else "dst4"
    kept = tuple(rule for rule in told if rule.host is None or rule.host[0] != other)
    assert client == Client(address, kept, "drop")


@given(
    version=st.sampled_from((4, 6)),
    untrusted=st.dictionaries(
        st.one_of(st.sampled_from(("0000", "0001", "policy")), st.text(max_size=6)),
        st.one_of(
            st.sampled_from(("drop", "action=accept", "action=drop proto=tcp dstports=1-2")),
            st.text(max_size=60),
        ),
    ),
)
def test_any_texts_are_rules_or_an_error(version: int, untrusted: dict[str, str]) -> None:
    with suppress(BadRulesError):
        client = parse(CLIENTS[version], untrusted)
        known = {name: frozenset({HOSTS[version][0]}) for name in client.names}
        text = tables.client(CLIENTS[version], matches_of(client, known, Unknown.ERROR), new=True)
        assert text.isascii()


@given(client=clients(), new=st.booleans())
def test_each_match_is_one_line_of_its_chain(client: Client, new: bool) -> None:
    matches = matches_of(client, {}, Unknown.OPEN)
    lines = tables.client(client.address, matches, new=new).splitlines()
    family, chain = tables.FAMILIES[client.version], tables.chain_of(client.address)
    source = f"{family} saddr {client.address}"
    jump = f"add rule {family} qubes-firewall qubes-forward {source} jump {chain}"
    assert (lines[-1] == jump) == new
    start = lines.index(f"    chain {chain} {{") + 1
    inside = lines[start : lines.index("    }", start)]
    assert [line.endswith(" accept") or line.strip() == "accept" for line in inside] == [
        match.accept for match in matches
    ]


def test_the_example_of_the_specification() -> None:
    client = parse(
        CLIENTS[4],
        {
            "0000": "action=accept dst4=192.0.2.10/32 proto=tcp dstports=443-443",
            "0001": "action=accept dsthost=example.org proto=tcp dstports=80-80",
            "0002": "action=accept specialtarget=dns",
            "policy": "drop",
        },
    )
    known = {"example.org": frozenset({"198.51.100.7"})}
    text = tables.client(client.address, matches_of(client, known, Unknown.ERROR), new=True)
    assert (
        text
        == """\
add chain ip qubes-firewall qbs-10-137-0-9
flush chain ip qubes-firewall qbs-10-137-0-9
table ip qubes-firewall {
    chain qbs-10-137-0-9 {
        ip protocol tcp ip daddr 192.0.2.10/32 tcp dport 443 accept
        ip protocol tcp ip daddr { 198.51.100.7/32 } tcp dport 80 accept
        ip daddr @dns-addr tcp dport 53 accept
        ip daddr @dns-addr udp dport 53 accept
        reject with icmp type admin-prohibited
    }
}
add rule ip qubes-firewall qubes-forward ip saddr 10.137.0.9 jump qbs-10-137-0-9
"""
    )
    assert (
        tables.resolvers(4, ["10.139.1.1", "10.139.1.2"])
        == """\
flush set ip qubes-firewall dns-addr
add element ip qubes-firewall dns-addr { 10.139.1.1, 10.139.1.2 }
"""
    )


def test_rules_of_ipv6_are_spelled_its_way() -> None:
    found = parse(
        CLIENTS[6], {"0000": "action=drop dst6=::/0 proto=icmp icmptype=128", "policy": "accept"}
    )
    text = tables.client(found.address, matches_of(found, {}, Unknown.ERROR), new=False)
    reject = "reject with icmpv6 type admin-prohibited"
    drop = f"ip6 nexthdr icmpv6 ip6 daddr ::/0 icmpv6 type 128 {reject}"
    assert f"    chain qbs-fd09-24ef-4179--a89-9 {{\n        {drop}\n        accept\n" in text


def test_rules_are_read_in_the_order_of_their_numbers() -> None:
    texts = {
        f"{number:04}": f"action=accept proto=udp dstports={number}" for number in (9999, 10_000, 2)
    }
    client = parse(CLIENTS[4], {**texts, "policy": "drop"})
    assert [rule.ports for rule in client.rules] == [(2, 2), (9999, 9999), (10_000, 10_000)]


@pytest.mark.parametrize(
    ("text", "version", "found"),
    [
        ("nameserver 10.139.1.1\nnameserver 10.139.1.2\n", 4, ["10.139.1.1", "10.139.1.2"]),
        ("nameserver 10.139.1.1\nnameserver 2001:db8::1\n", 6, ["2001:db8::1"]),
        ("nameserver fe80::1%eth0\n#nameserver 10.0.0.1\nsearch nameserver\n", 6, []),
        ("nameserver 10.0.0.1 ; a comment\n nameserver\t10.0.0.1\nnameserver x\n", 4, ["10.0.0.1"]),
    ],
)
def test_resolvers_are_those_of_the_family(text: str, version: int, found: list[str]) -> None:
    assert parse_resolvers(text, version) == found


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20)))
def test_attributes_survive_their_encoding(found: dict[int, bytes]) -> None:
    encoded = b"".join(conntrack.attribute(kind, value) for kind, value in found.items())
    assert conntrack.attributes(encoded) == found


@given(st.binary(max_size=60))
def test_any_bytes_are_attributes_or_an_error(untrusted: bytes) -> None:
    with suppress(ValueError):
        conntrack.attributes(untrusted)


def test_hooks_are_run_in_order_and_one_that_fails_keeps_none_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("template", "own"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(hooks, "_FROM_TEMPLATE", str(tmp_path / "template"))
    monkeypatch.setattr(hooks, "_OWN", str(tmp_path / "own"))
    monkeypatch.setattr(hooks, "_OWN_SCRIPT", str(tmp_path / "script"))
    monkeypatch.setattr(hooks, "_OWN_ARE_NOT_USED", str(tmp_path / "persist"))
    monkeypatch.setattr(hooks, "_TIMEOUT", 1.0)
    for name, mode, line in (
        ("template/10", 0o755, "echo 1"),
        ("template/20", 0o755, "echo 2; exit 1"),
        ("template/30", 0o644, "echo not executable"),
        ("own/10", 0o755, "echo 3; exec sleep 100"),
        ("own/20", 0o755, "echo 4"),
        ("script", 0o755, "echo 5"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(mode)
    hooks.run()
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in printed if line.isdigit()] == ["1", "2", "3", "4", "5"]
    failed = [line for line in printed if line.startswith("firewall hook: ")]
    assert failed[0].endswith("template/20']' returned non-zero exit status 1.")
    assert "own/10']' timed out" in failed[1]
    assert len(failed) == 2
    (tmp_path / "persist").touch()
    hooks.run()
    assert [line for line in capfd.readouterr().out.splitlines() if line.isdigit()] == ["1", "2"]


class Kept:
    """A database with rules of two clients."""

    def __init__(self, rules: dict[str, str]) -> None:
        self.values: dict[str, str] = {}
        for address, rule in rules.items():
            path = f"/qubes-firewall/{address}"
            self.values |= {f"{path}/0000": rule, f"{path}/policy": "drop", path: ""}

    def below(self, prefix: str, _kind: object) -> list[tuple[bytes, bytes]]:
        found = sorted(item for item in self.values.items() if item[0].startswith(prefix))
        return [(key.encode(), value.encode()) for key, value in found]

    def read(self, key: str) -> bytes:
        if key not in self.values:
            raise NotFoundError(key)
        return self.values[key].encode()

    def write(self, key: str, value: bytes) -> None:
        self.values[key] = value.decode()

    def remove(self, key: str) -> None:
        raise NotFoundError(key)


class Nft:
    """Takes texts, but for those that have a word in them."""

    def __init__(self, refused: str) -> None:
        self.refused, self.taken = refused, list[str]()

    def apply(self, text: str) -> None:
        if self.refused in text:
            raise tables.NotAppliedError("refused")
        self.taken.append(text)


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connections, "begun_by", lambda _self, _address: iter(()))


@pytest.mark.usefixtures("no_connections")
def test_a_client_whose_rules_nft_refuses_is_blocked_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nft, complaints = Nft("dport 80"), list[str]()
    monkeypatch.setattr(tables, "apply", nft.apply)
    firewall = Firewall(lambda _name: None, complaints.append, Times())
    kept = Kept(
        {"10.137.0.5": "action=accept", "10.137.0.6": "action=accept proto=tcp dstports=80"}
    )
    firewall.database = cast(Database, kept)
    firewall.look_at_all()
    assert complaints == ["10.137.0.6 is blocked: refused"]
    first, second = nft.taken
    assert "chain qbs-10-137-0-5 {\n        accept\n" in first
    assert "chain qbs-10-137-0-6 {\n        reject with icmp type admin-prohibited\n    }" in second
    assert kept.values["/qubes-firewall-handled/10.137.0.6"] == "1"


@pytest.mark.usefixtures("no_connections")
def test_when_not_even_blocking_is_possible_the_program_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "apply", Nft("").apply)
    firewall = Firewall(lambda _name: None, lambda _text: None, Times())
    firewall.database = cast(Database, Kept({"10.137.0.5": "action=accept"}))
    with pytest.raises(tables.NotAppliedError):
        firewall.look_at_all()
