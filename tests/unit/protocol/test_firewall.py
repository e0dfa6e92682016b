"""Firewall rules read and written (admin-api.md section 3.8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.firewall import Rule, parse_rule, parse_rules, published


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("action=accept", "action=accept"),
        ("proto=tcp dst4=10.9.0.0/16 action=drop", "action=drop dst4=10.9.0.0/16 proto=tcp"),
        ("action=accept dsthost=1.2.3.4", "action=accept dst4=1.2.3.4/32"),
        ("action=accept dst4=fd09::1", "action=accept dst6=fd09::1/128"),
        ("action=accept dstname=example.org", "action=accept dsthost=example.org"),
        ("action=accept dsthost=1.2.3", "action=accept dsthost=1.2.3"),
        ("action=accept dst6=::/0", "action=accept dst6=::/0"),
        ("dstports=80 proto=udp action=accept", "action=accept proto=udp dstports=80-80"),
        ("action=accept proto=tcp dstports=0-65535", "action=accept proto=tcp dstports=0-65535"),
        ("action=drop icmptype=8 proto=icmp", "action=drop proto=icmp icmptype=8"),
        ("action=accept specialtarget=dns", "action=accept specialtarget=dns"),
        ("action=accept expire=1700000000", "action=accept expire=1700000000"),
        ("action=accept comment=", "action=accept comment="),
        ("action=drop comment=a b=c", None),
        ("action=drop comment=my wiki [1]: a/b", "action=drop comment=my wiki [1]: a/b"),
        (
            "comment=x action=drop",
            None,
        ),
        ("", None),
        ("proto=tcp", None),
        ("action=maybe", None),
        ("action=accept action=drop", None),
        ("action=accept dst4=1.2.3.4 dsthost=a", None),
        ("action=accept  proto=tcp", None),
        (" action=accept", None),
        ("action=accept ", None),
        ("action=accept proto=sctp", None),
        ("action=accept dstports=80", None),
        ("action=accept proto=icmp dstports=80", None),
        ("action=accept proto=tcp dstports=80-79", None),
        ("action=accept proto=tcp dstports=65536", None),
        ("action=accept proto=tcp dstports=-1", None),
        ("action=accept proto=tcp icmptype=8", None),
        ("action=accept proto=icmp icmptype=256", None),
        ("action=accept proto=icmp icmptype=0008", None),
        ("action=accept dst4=1.2.3.4/33", None),
        ("action=accept dst6=::/129", None),
        ("action=accept dsthost=a/24", None),
        ("action=accept dsthost=Example.org", None),
        ("action=accept dsthost=ex\u00e4mple", None),
        ("action=accept expire=soon", None),
        ("action=accept specialtarget=ntp", None),
        ("action=accept comment=n\u00f6", None),
        ("action=accept unknown=1", None),
        ("action=accept word", None),
        ("action=accept proto=", None),
        ("action=accept dsthost=a_b.c-d", "action=accept dsthost=a_b.c-d"),
        ("action=accept dst4=10.0.0.0/8 dst6=::/0", None),
        ("action=accept dsthost=10.0.0.0/0", "action=accept dst4=10.0.0.0/0"),
        ("action=accept dsthost=10.0.0.1/-1", None),
        ("action=accept dsthost=10.0.0.1/", None),
        ("action=accept dsthost=/24", None),
        ("action=accept dsthost=fe80::1%eth0", None),
        ("action=accept dstports=1-2 proto=udp", "action=accept proto=udp dstports=1-2"),
        ("action=accept proto=tcp dstports=", None),
        ("action=accept proto=tcp dstports=1-", None),
        ("action=accept proto=tcp dstports=1-2-3", None),
        ("action=accept proto=tcp dstports=1,2", None),
        ("action=accept proto=icmp icmptype=255", "action=accept proto=icmp icmptype=255"),
        ("action=accept icmptype=8", None),
        ("action=accept expire=-1", None),
        ("action=accept expire=", None),
        ("action=accept expire=99999999999999999999", None),
        ("action=accept dpi=x", None),
        ("action=ACCEPT", None),
        ("action=accept\tproto=tcp", None),
        ("action=accept\0", None),
        ("action=accept comment=tab\there", None),
        ("comment=x", None),
        (
            "icmptype=8 specialtarget=dns proto=icmp dsthost=a expire=7 action=drop comment=all",
            "action=drop expire=7 dsthost=a proto=icmp specialtarget=dns icmptype=8 comment=all",
        ),
    ],
)
def test_rules(text: str, printed: str | None) -> None:
    if printed is None:
        with pytest.raises(ProtocolError):
            parse_rule(text)
    else:
        assert str(parse_rule(text)) == printed
        assert parse_rule(printed) == parse_rule(text)


def test_rules_one_a_line() -> None:
    assert parse_rules("") == []
    assert len(parse_rules("action=accept\naction=drop\n")) == 2
    assert len(parse_rules("action=accept\naction=drop")) == 2
    for text in ("\n", "action=accept\n\n", "action=accept\n\naction=drop", "action=accept\r\n"):
        with pytest.raises(ProtocolError):
            parse_rules(text)


def test_what_is_enforced_says_neither_until_when_nor_why() -> None:
    rule = parse_rule("action=accept expire=5 dst4=1.2.3.4 comment=x")
    assert rule.enforced() == "action=accept dst4=1.2.3.4/32"
    assert rule.expired(5)
    assert not rule.expired(4.9)
    assert not parse_rule("action=accept").expired(1e12)


def test_what_a_provider_is_told_of_a_clients_rules() -> None:
    rules = parse_rules(
        "action=accept dst4=192.0.2.10 proto=tcp dstports=443 comment=wiki\n"
        "action=accept expire=5\n"
        "action=accept dst6=fd09::1\n"
        "action=accept expire=20 dsthost=example.org proto=tcp dstports=80\n"
        "action=accept specialtarget=dns"
    )
    path = "/qubes-firewall/10.137.0.9"
    assert published("10.137.0.9", rules, 10) == [
        (f"{path}/0000", "action=accept dst4=192.0.2.10/32 proto=tcp dstports=443-443"),
        (f"{path}/0003", "action=accept dsthost=example.org proto=tcp dstports=80-80"),
        (f"{path}/0004", "action=accept specialtarget=dns"),
        (f"{path}/policy", "drop"),
        (path, ""),
    ]
    path = "/qubes-firewall/fd09::2"
    assert [key for key, _ in published("fd09::2", rules, 10)] == [
        f"{path}/0002", f"{path}/0003", f"{path}/0004", f"{path}/policy", path
    ]  # fmt: skip
    with pytest.raises(ValueError, match="nonsense"):
        published("nonsense", rules, 10)


@given(st.text())
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        rules = parse_rules(text)
    except ProtocolError:
        return
    printed = "".join(f"{rule}\n" for rule in rules)
    assert parse_rules(printed) == rules


@given(
    st.builds(
        Rule,
        action=st.sampled_from(("accept", "drop")),
        expire=st.none() | st.integers(0, 10**12),
        host=st.none() | st.just(("dst4", "10.0.0.0/8")) | st.just(("dsthost", "a.b")),
        proto=st.just("tcp"),
        ports=st.none() | st.just((1, 2)),
        comment=st.none() | st.from_regex(r"[A-Za-z0-9 ]*", fullmatch=True),
    )
)
def test_what_is_written_is_read(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule
