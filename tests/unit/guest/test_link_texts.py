"""What programs are told to do for links (network-firewall.md sections 3 to 5)."""

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.guest.network import addresses, downlink, hidden, outward, redirection, resolver
from insula.guest.network.addresses import UnusableLinkError
from insula.guest.network.records import Record, Records
from insula.protocol.frames import HEADER
from insula.protocol.links import Link, LinkRole

MAC = "00:16:3e:5e:6c:00"
KEYS = {
    "/qubes-ip": "10.137.0.9",
    "/qubes-netmask": "255.255.255.255",
    "/qubes-gateway": "10.137.0.6",
    "/qubes-primary-dns": "10.139.1.1",
    "/qubes-secondary-dns": "10.139.1.2",
}
KEYS6 = {"/qubes-ip6": "fd09:24ef:4179::a89:9", "/qubes-gateway6": "fd09:24ef:4179::a89:6"}
PROVIDER = addresses.Provider(
    gateway=IPv4Address("10.137.0.6"), gateway6=None, virtual_dns=(IPv4Address("10.139.1.1"),)
)
CLIENT = Link(
    number=7,
    role=LinkRole.DOWNLINK,
    mac="00:16:3e:5e:80:07",
    name="vif7.0",
    own_mac="fe:ff:ff:ff:ff:ff",
    client_mac=MAC,
    ips=("10.137.0.9",),
)


def uplink(keys: Mapping[str, str], *, default_route: bool = True) -> list[str]:
    card = addresses.from_keys(keys.get, MAC)
    return outward.commands("eth0", card, default_route=default_route)


def test_the_uplink_is_as_the_keys_say() -> None:
    assert uplink(KEYS) == [
        "addr replace 10.137.0.9/32 dev eth0",
        "neigh replace 10.137.0.6 dev eth0 lladdr fe:ff:ff:ff:ff:ff nud permanent",
        "link set dev eth0 group 1 up",
        "route replace 10.137.0.6 dev eth0 scope link",
        "route replace default via 10.137.0.6 dev eth0 onlink",
    ]


def test_ipv6_comes_beside() -> None:
    added = [line for line in uplink(KEYS | KEYS6) if line not in uplink(KEYS)]
    assert added == [
        "addr replace fd09:24ef:4179::a89:9/128 dev eth0 nodad",
        "neigh replace fd09:24ef:4179::a89:6 dev eth0 lladdr fe:ff:ff:ff:ff:ff nud permanent",
        "route replace fd09:24ef:4179::a89:6 dev eth0",
        "route replace default via fd09:24ef:4179::a89:6 dev eth0 onlink",
    ]


def test_a_link_local_gateway_needs_no_route() -> None:
    lines = uplink(KEYS | KEYS6 | {"/qubes-gateway6": "fe80::1"})
    assert "route replace fe80::1 dev eth0" not in lines
    assert "route replace default via fe80::1 dev eth0 onlink" in lines


def test_without_a_default_route_the_gateway_is_still_there() -> None:
    lines = uplink(KEYS, default_route=False)
    assert not [line for line in lines if "default" in line]
    assert "route replace 10.137.0.6 dev eth0 scope link" in lines


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["10.139.1.1", "10.139.1.2"]),
        ({"/qubes-secondary-dns": ""}, ["10.139.1.1"]),
        ({"/qubes-primary-dns": ""}, ["10.137.0.6", "10.139.1.2"]),
    ],
)
def test_who_is_asked_for_names(changes: dict[str, str], expected: list[str]) -> None:
    card = addresses.from_keys((KEYS | changes).get, MAC)
    assert resolver.text(card.dns) == "".join(f"nameserver {each}\n" for each in expected)


def test_keys_of_the_card_itself_go_first() -> None:
    own = {f"/net-config/{MAC}/ip": "192.168.1.5", f"/net-config/{MAC}/netmask": "255.255.255.0"}
    lines = uplink(KEYS | own | {f"/net-config/{MAC}/custom": ""})
    assert lines[0] == "addr replace 192.168.1.5/24 dev eth0"
    assert not [line for line in lines if line.startswith("neigh")]


@pytest.mark.parametrize(
    "keys",
    [{}, {"/qubes-ip": ""}, {"/qubes-ip": "10.0.0.1 dev lo"}, {**KEYS, "/qubes-gateway": "x"}],
)
def test_keys_that_are_no_addresses_make_no_uplink(keys: dict[str, str]) -> None:
    with pytest.raises(UnusableLinkError):
        uplink(keys)


def test_a_clients_card_is_guarded_before_it_goes_up() -> None:
    card = addresses.downlink(CLIENT, PROVIDER)
    lines = downlink.commands(card)
    up = lines.index("link set dev vif7.0 group 2 up")
    assert lines[:up] == [f"neigh replace 10.137.0.9 dev vif7.0 lladdr {MAC} nud permanent"]
    assert lines[up + 1 :] == [
        "route replace 10.137.0.9 dev vif7.0 metric 32745",
        "addr replace 10.137.0.6/32 dev vif7.0",
    ]
    assert downlink.allow(card) == (
        'add element ip qubes allowed { "vif7.0" . 10.137.0.9 }\n'
        "add element ip qubes downstream { 10.137.0.9 }\n"
    )


def test_an_address_that_another_card_has_stays_a_clients() -> None:
    address = ip_address("fd09::9")
    gone = downlink.forbid("vif7.0", [address], [])
    shared = downlink.forbid("vif7.0", [address], [address])
    assert 'delete element ip6 qubes allowed { "vif7.0" . fd09::9 }' in shared
    assert "downstream" in gone
    assert "downstream" not in shared


@given(
    field=st.sampled_from(["name", "client_mac", "visible_ip", "visible_gateway", "ips"]),
    untrusted=st.text(max_size=30),
)
def test_no_word_of_a_command_comes_from_elsewhere(field: str, untrusted: str) -> None:
    value = (untrusted,) if field == "ips" else untrusted
    try:
        card = addresses.downlink(replace(CLIENT, **{field: value}), PROVIDER)  # type: ignore[arg-type]
    except UnusableLinkError:
        return
    expected = addresses.downlink(CLIENT, PROVIDER)
    for made, usual in (
        (downlink.commands(card), downlink.commands(expected)),
        (downlink.allow(card).splitlines(), downlink.allow(expected).splitlines()),
    ):
        assert [len(line.split()) for line in made] == [len(line.split()) for line in usual]


@pytest.mark.parametrize("name", ["vif32753.0", "vif07.0", "vif7", "eth0", "vif7.00", "vif7.0 "])
def test_names_that_are_no_clients_cards(name: str) -> None:
    with pytest.raises(UnusableLinkError):
        addresses.downlink(replace(CLIENT, name=name), PROVIDER)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"visible_ip": "10.137.0.9", "visible_gateway": "10.137.0.6"}, False),
        ({"visible_ip": "192.168.1.2"}, True),
        ({"visible_gateway": "192.168.1.1"}, True),
    ],
)
def test_who_is_told_another_address(changes: dict[str, str], expected: bool) -> None:
    link = replace(CLIENT, ips=("10.137.0.9", "fd09::9"), **changes)  # type: ignore[arg-type]
    card = addresses.downlink(link, PROVIDER)
    assert hidden.is_hidden(card) is expected
    assert len(card.addresses) == (1 if expected else 2)


def test_virtual_servers_are_spread_over_the_real_ones() -> None:
    virtual = [IPv4Address("10.139.1.1"), IPv4Address("10.139.1.2")]
    one, two = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")

    def verdicts(real: list[IPv4Address]) -> list[str]:
        lines = redirection.rules(virtual, real).splitlines()
        return [line.split("dport 53 ")[1] for line in lines if "dport" in line]

    assert verdicts([one, two]) == [f"dnat to {one}"] * 2 + [f"dnat to {two}"] * 2
    assert verdicts([one]) == [f"dnat to {one}"] * 4
    assert verdicts([]) == ["drop"] * 4


def test_real_servers_are_of_ipv4_and_those_behind_a_stub(tmp_path: Path) -> None:
    plain, resolved = tmp_path / "resolv.conf", tmp_path / "resolved.conf"
    assert redirection.real_servers(plain, resolved) == []
    plain.write_text(
        "# nameserver 1.1.1.1\nnameserver fe80::1\nnameserver\nnameserver 192.0.2.1 x\n"
    )
    assert redirection.real_servers(plain, resolved) == [IPv4Address("192.0.2.1")]
    plain.write_text("nameserver 127.0.0.53\n")
    resolved.write_text("nameserver 192.0.2.7\n")
    assert redirection.real_servers(plain, resolved) == [IPv4Address("192.0.2.7")]


def test_a_link_in_place_of_the_resolvers_file_is_replaced(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "resolv.conf"
    other.write_text("nameserver 10.139.1.1\n")
    path.symlink_to(other)
    assert resolver.write(path, "nameserver 10.139.1.1\n")
    assert not path.is_symlink()
    assert not resolver.write(path, "nameserver 10.139.1.1\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "resolv.conf"]


def test_what_was_configured_outlives_the_agent(tmp_path: Path) -> None:
    records = Records(tmp_path / "state")
    kept = Record(CLIENT, 12, ("addr replace 10.137.0.6/32 dev vif7.0",))
    records.keep(kept)
    records.keep(replace(kept, link=replace(CLIENT, number=8)))
    records.drop(8)
    (tmp_path / "state" / "9.link").write_bytes(kept.encode()[:-4])
    again = Records(tmp_path / "state")
    assert list(again) == [kept]
    assert again.get(8) is None
    assert json.loads(kept.encode().split(b"\n")[0]) == json.loads(CLIENT.encode()[HEADER.size :])
