"""Rules in a few words."""

import time

import pytest

from insula.protocol.firewall import parse_rule
from insula.tools.net.reaching import in_short

NOON = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (["action=accept"], "anything"),
        ([], "nothing"),
        (["action=drop"], "nothing"),
        (["action=accept dsthost=0.0.0.0/0"], "anything"),
        (
            ["action=accept dsthost=example.org proto=tcp dstports=443", "action=drop"],
            "example.org tcp 443",
        ),
        (
            ["action=accept dsthost=192.0.2.1", "action=accept specialtarget=dns"],
            "192.0.2.1, DNS",
        ),
        (["action=accept dsthost=2001:db8::1 proto=udp dstports=1-9"], "2001:db8::1 udp 1-9"),
        (["action=drop dsthost=10.0.0.0/8", "action=accept"], "not 10.0.0.0/8, else anything"),
        (["action=accept proto=icmp icmptype=8"], "icmp type 8"),
        (["action=accept dsthost=a.b", "action=accept"], "anything"),
        (["action=drop dsthost=a.b", "action=drop"], "nothing"),
        (["action=drop", "action=accept"], "nothing"),
        (
            [f"action=accept expire={int(NOON)}", "action=drop"],
            "anything until 2026-03-04 12:00",
        ),
        (["action=accept expire=1", "action=drop"], "nothing"),
        (
            [f"action=accept dsthost=h{number}" for number in range(9)],
            "h0, h1, h2, 6 rules more",
        ),
    ],
)
def test_what_comes_through_is_told(rules: list[str], words: str) -> None:
    assert in_short([parse_rule(rule) for rule in rules], NOON - 3600) == words
