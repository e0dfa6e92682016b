"""Why a call is answered as it is: the rules passed over, and traps on the way."""

from dataclasses import dataclass

from insula.protocol.policy.evaluation import Request, Verdict, evaluate, requested_of
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import ALLOW, ASK, DENY, Rule
from insula.protocol.policy.system import SystemInfo
from insula.protocol.policy.tokens import Kind, matches_source, matches_target


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rule that was tried and passed over. why: which of its columns did not match."""

    rule: Rule
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict, the rules before the one that decided, and what a person may not expect."""

    verdict: Verdict
    skipped: tuple[Skipped, ...]
    traps: tuple[str, ...]


def explain(policy: Policy, system: SystemInfo, request: Request) -> Explanation:
    """The verdict on a call and how it came about."""
    verdict = evaluate(policy, system, request)
    skipped = tuple(_skipped(policy, system, request, verdict))
    traps = tuple(_traps(policy, system, request, verdict))
    return Explanation(verdict, skipped, traps)


def _skipped(
    policy: Policy, system: SystemInfo, request: Request, verdict: Verdict
) -> list[Skipped]:
    requested = requested_of(system, request)
    if requested is None:
        return []  # It was refused before any rule was looked at.
    found = []
    for rule in policy.rules:
        if rule is verdict.rule:
            break
        if rule.service not in (None, request.service):
            why = "another service"
        elif rule.argument not in (None, request.argument):
            why = "another argument"
        elif not matches_source(rule.source, verdict.source, system):
            why = "another source"
        elif not matches_target(rule.target, requested, verdict.source, system):
            why = "another target"
        else:
            break
        found.append(Skipped(rule, why))
    return found


def _traps(policy: Policy, system: SystemInfo, request: Request, verdict: Verdict) -> list[str]:
    rule = verdict.rule
    if rule is None:
        return []
    found = []
    if rule.redirect is not None and rule.action in (ALLOW, ASK):
        asked = Request(
            service=request.service,
            argument=request.argument,
            source=request.source,
            target=rule.redirect.text,
            requested_source=request.requested_source,
        )
        direct = evaluate(policy, system, asked)
        if direct.outcome == DENY and direct.rule is not None and direct.rule is not rule:
            found.append(
                f"{_place(rule)} sends the call to {rule.redirect.text}, which "
                f"{_place(direct.rule)} denies: a redirect is not looked at again"
            )
    for later in shadowed_by(policy, rule):
        found.append(f"{_place(later)} is never reached: {_place(rule)} stands before it")
    return found


def shadowed_by(policy: Policy, rule: Rule) -> list[Rule]:
    """Later rules that can never decide, because a rule matches all that they match."""
    behind = policy.rules[policy.rules.index(rule) + 1 :]
    return [later for later in behind if _covers(rule, later)]


def dead_rules(policy: Policy) -> list[tuple[Rule, Rule]]:
    """Rules that can never decide, each with the first one that stands in its way."""
    found = []
    for place, later in enumerate(policy.rules):
        for earlier in policy.rules[:place]:
            if _covers(earlier, later):
                found.append((later, earlier))
                break
    return found


def _covers(rule: Rule, other: Rule) -> bool:
    """Whether a rule matches whatever another matches, whichever qubes there are."""
    return (
        rule.service in (None, other.service)
        and rule.argument in (None, other.argument)
        and _covers_token(rule, other, "source")
        and _covers_token(rule, other, "target")
    )


def _covers_token(rule: Rule, other: Rule, column: str) -> bool:
    token, covered = getattr(rule, column), getattr(other, column)
    if token.kind is Kind.ALL or token == covered:
        return True
    if token.is_admin and covered.is_admin:
        return True
    if token.kind is not Kind.ANY:
        return False
    if covered.kind in (Kind.TAG, Kind.TYPE):
        return bool(covered.kind is Kind.TYPE and covered.value != "AdminVM")
    return covered.kind is not Kind.ALL and not covered.is_admin


def _place(rule: Rule) -> str:
    return f"{rule.file}:{rule.line if rule.line is not None else 'implicit'}"
