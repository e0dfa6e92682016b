"""qvm-firewall: how rules are shown, read and sent."""

import json
import time

import pytest

from insula.tools import qvm_firewall
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError

NOW = 1_700_000_000


@pytest.fixture(autouse=True)
def qube(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> FakeQube:
    monkeypatch.setattr(time, "time", lambda: NOW + 0.5)
    rules = (
        "action=accept dst4=10.9.0.0/16 proto=tcp dstports=443-443 comment=the wiki\n"
        f"action=accept expire={NOW + 280} dsthost=example.org proto=udp dstports=1-2\n"
        "action=accept specialtarget=dns\n"
        "action=drop proto=icmp icmptype=8\n"
        "action=drop\n"
    )
    return daemon.add(FakeQube("work", firewall=rules))


@pytest.mark.parametrize("words", [["work"], ["work", "list"], ["-vq", "work"]])
def test_rules_are_listed_with_their_numbers(run: Run, words: list[str]) -> None:
    done = run(qvm_firewall.main, *words)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "NO  ACTION  HOST         PROTOCOL  PORT(S)  SPECIAL TARGET  ICMP TYPE  EXPIRE  COMMENT\n"
        "0   accept  10.9.0.0/16  tcp       443      -               -          -       the wiki\n"
        "1   accept  example.org  udp       1-2      -               -          +280s   -\n"
        "2   accept  -            -         -        dns             -          -       -\n"
        "3   drop    -            icmp      -        -               8          -       -\n"
        "4   drop    -            -         -        -               -          -       -\n"
    )


def test_rules_are_shown_as_clients_send_them(run: Run, daemon: FakeDaemon) -> None:
    assert run(qvm_firewall.main, "--raw", "--reload", "work", "list").out.splitlines() == [
        "action=accept proto=tcp dst4=10.9.0.0/16 dstports=443-443 comment=the wiki",
        f"action=accept proto=udp dsthost=example.org dstports=1-2 expire={NOW + 280}",
        "action=accept specialtarget=dns",
        "action=drop proto=icmp icmptype=8",
        "action=drop",
    ]
    assert daemon.asked("admin.vm.firewall.Reload") == [("work", "", b"")]
    assert json.loads(run(qvm_firewall.main, "--json", "work").out)[3:] == [
        {"action": "drop", "proto": "icmp", "icmptype": "8"}, {"action": "drop"},
    ]  # fmt: skip


def test_no_rules_are_nothing(run: Run, qube: FakeQube) -> None:
    qube.firewall = ""
    done = run(qvm_firewall.main, "work")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["accept"], "action=accept"),
        (["drop", "10.0.0.1"], "action=drop dst4=10.0.0.1/32"),
        (["drop", "fe80::1/64", "tcp", "8"], "action=drop proto=tcp dst6=fe80::1/64 dstports=8-8"),
        (["accept", "a.org", "icmp", "8"], "action=accept proto=icmp dsthost=a.org icmptype=8"),
        (["proto=udp", "drop", "a", "5-6"], "action=drop proto=udp dsthost=a dstports=5-6"),
        (["accept", "0.0.0.0/0", "tcp"], "action=accept proto=tcp"),
        (["accept", "dst6=::/0"], "action=accept"),
        (["comment=a", "action=drop", "expire=+60"], f"action=drop expire={NOW + 60} comment=a"),
        (["accept", "specialtarget=dns", "expire=5"], "action=accept specialtarget=dns expire=5"),
        (["accept", "dst4=9.0.0.0/8", "comment=a b"], "action=accept dst4=9.0.0.0/8 comment=a b"),
    ],
)  # fmt: skip
def test_words_become_a_rule(run: Run, qube: FakeQube, words: list[str], rule: str) -> None:
    qube.firewall = "action=drop\n"
    assert run(qvm_firewall.main, "work", "add", *words).code == 0
    assert qube.firewall == f"action=drop\n{rule}\n"


@pytest.mark.parametrize(("before", "at"), [("0", 0), ("1", 1), ("2", 2)])
def test_a_rule_is_put_where_it_is_to_be(run: Run, qube: FakeQube, before: str, at: int) -> None:
    qube.firewall = "action=drop proto=tcp\naction=drop\n"
    assert run(qvm_firewall.main, "work", "add", "--before", before, "accept").code == 0
    assert qube.firewall.splitlines().index("action=accept") == at


@pytest.mark.parametrize(
    "words",
    [
        ["add"], ["add", "maybe"], ["add", "accept", "a b"], ["add", "accept", "a", "tcp", "x"],
        ["add", "accept", "a", "tcp", "1", "2"], ["add", "accept", "colour=red"],
        ["add", "accept", "action=drop"], ["add", "accept", "dst4=a", "dst6=b"], ["add", "a.org"],
        ["add", "accept", "expire=+x"], ["add", "accept", "dstports=80"], ["del"], ["change"],
        ["add", "--before", "x", "drop"], ["add", "--before", "9", "drop"],
        ["del", "--rule-no", "9"], ["del", "--rule-no", "-1"], ["del", "--rule-no", "0", "accept"],
    ],
)  # fmt: skip
def test_what_cannot_be_meant_changes_nothing(
    run: Run, daemon: FakeDaemon, words: list[str]
) -> None:
    done = run(qvm_firewall.main, "work", *words)
    assert (done.code, daemon.asked("admin.vm.firewall.Set")) == (2, [])


def test_rules_are_taken_away(run: Run, qube: FakeQube) -> None:
    assert run(qvm_firewall.main, "work", "del", "--rule-no", "1").code == 0
    assert run(qvm_firewall.main, "work", "del", "drop", "proto=icmp", "icmptype=8").code == 0
    words = ["del", "accept", "10.9.0.0/16", "tcp", "443", "comment=the wiki"]
    assert run(qvm_firewall.main, "work", *words).code == 0
    assert qube.firewall == "action=accept specialtarget=dns\naction=drop\n"
    done = run(qvm_firewall.main, "work", "del", "drop", "10.1.1.1")
    assert (done.code, done.err.startswith("Error: ")) == (1, True)
    assert run(qvm_firewall.main, "work", "reset").code == 0
    assert qube.firewall == "action=accept\n"


def test_a_refusal_is_told(run: Run, daemon: FakeDaemon) -> None:
    daemon.refusals["admin.vm.firewall.Set", "work"] = RefusedError("QubesException", "no")
    done = run(qvm_firewall.main, "work", "reset")
    assert (done.code, done.err) == (1, "Error: no\n")
    assert run(qvm_firewall.main, "none").code == 2
