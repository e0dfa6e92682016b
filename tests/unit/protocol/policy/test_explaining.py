"""Why a call is answered as it is."""

import pytest

from insula.protocol.policy.evaluation import Request
from insula.protocol.policy.explaining import dead_rules, explain
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import Rule, lines_of, parse_line
from insula.protocol.policy.system import QubeInfo, SystemInfo

SYSTEM = SystemInfo(
    (
        QubeInfo(name="dom0", klass="AdminVM"),
        QubeInfo(name="work", klass="AppVM", guivm="dom0", tags=frozenset(("t",))),
        QubeInfo(name="vault", klass="AppVM", guivm="dom0"),
        QubeInfo(name="net", klass="AppVM", guivm="dom0"),
    )
)


def _policy(text: str) -> Policy:
    parsed = [parse_line("p", number, line) for number, line in lines_of(text)]
    return Policy(rule for rule in parsed if isinstance(rule, Rule))


def _request(target: str = "vault") -> Request:
    return Request.of("acme.Ping+x", "work", target)


def test_rules_passed_over_are_told_with_why() -> None:
    policy = _policy(
        "other.Service * work vault allow\n"
        "acme.Ping +y work vault allow\n"
        "acme.Ping +x vault vault allow\n"
        "acme.Ping * work net allow\n"
        "acme.Ping * work vault deny\n"
        "acme.Ping * work vault allow\n"
    )
    found = explain(policy, SYSTEM, _request())
    assert (found.verdict.outcome, found.verdict.reason) == ("deny", "rule")
    assert [(one.rule.line, one.why) for one in found.skipped] == [
        (1, "another service"),
        (2, "another argument"),
        (3, "another source"),
        (4, "another target"),
    ]
    assert found.traps == ("p:6 is never reached: p:5 stands before it",)


def test_a_redirect_past_a_denial_is_named() -> None:
    policy = _policy("acme.Ping * work vault deny\nacme.Ping * work @anyvm allow target=vault\n")
    found = explain(policy, SYSTEM, _request("net"))
    assert found.verdict.target == "vault"
    assert any("p:1 denies" in trap for trap in found.traps)
    assert explain(policy, SYSTEM, _request("vault")).traps == ()


def test_without_a_rule_all_were_passed_over() -> None:
    policy = _policy("acme.Ping * vault net allow\n")
    found = explain(policy, SYSTEM, _request())
    assert found.verdict.reason == "no-match"
    assert len(found.skipped) == 1


def test_what_is_refused_for_its_target_has_no_rules() -> None:
    found = explain(_policy("* * @anyvm @anyvm allow\n"), SYSTEM, _request("@tag:x"))
    assert found.verdict.outcome == "error"
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("first", "second", "dead"),
    [
        ("* * * * deny", "a * work vault allow", True),
        ("a * @anyvm @anyvm deny", "a * work vault allow", True),
        ("a * @anyvm @anyvm deny", "a * work dom0 allow", False),
        ("a * @anyvm @anyvm deny", "a * @tag:t vault allow", False),
        ("a * @anyvm @anyvm deny", "a * @type:AppVM @dispvm allow", True),
        ("a * @anyvm dom0 deny", "a * work @adminvm allow", True),
        ("a +x work vault deny", "a * work vault allow", False),
        ("a * work vault deny", "a +x work vault allow", True),
        ("a * work vault deny", "b * work vault allow", False),
        ("a * @tag:t vault deny", "a * work vault allow", False),
    ],
)
def test_rules_that_never_decide(first: str, second: str, dead: bool) -> None:
    policy = _policy(f"{first}\n{second}\n")
    assert [(later.line, earlier.line) for later, earlier in dead_rules(policy)] == (
        [(2, 1)] if dead else []
    )
