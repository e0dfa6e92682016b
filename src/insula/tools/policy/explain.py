"""insula policy explain: what becomes of a call, and why."""

import argparse
from typing import Any

from insula.client.policy_reading import places_of, read_system
from insula.protocol.policy.errors import PolicyError, PolicySyntaxError
from insula.protocol.policy.evaluation import ERROR, Request, Verdict
from insula.protocol.policy.explaining import Explanation, explain
from insula.protocol.policy.loading import load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import ALLOW, ASK, Rule
from insula.qrexec.policy_store import PolicyReader
from insula.tools.command import print_json, show

_OTHER_SERVICE = "another service"
_REASONS = {
    "rule": "the rule says so",
    "no-match": "no rule is about it",
    "no-target": "there is no such target, and no rule names another",
    "no-dispvm-base": "there is nothing to make a disposable of",
    "not-dispvm-template": "the target is no template of disposables",
    "autostart": "the target does not run, and the rule does not let it be started",
    "no-ask-targets": "there is nothing to choose from",
    "no-guivm": "there is nobody to ask: the source has no GUI qube",
    "loopback": "a qube does not call itself",
    "no-relay": "the target is on another system, and no relay leads there",
    "no-transport": "the target is on another system, and no service carries calls there",
    "bad-requested-source": "the caller does not speak for that qube",
    "bad-target-token": "the target is no qube and no keyword that may be called",
}


def run(arguments: argparse.Namespace) -> int:
    """Explain one call; 1 when the policy cannot be read, and so refuses everything."""
    system, _ = read_system(arguments.system)
    request = Request.of(arguments.service, arguments.source, arguments.target)
    try:
        rules = load(PolicyReader(), places_of(arguments.policy_dir, arguments.legacy_dir))
    except PolicyError as error:
        if arguments.json:
            print_json(_failed(error))
            return 1
        print("error: everything is refused, for the policy cannot be read")
        return show(error)
    found = explain(Policy(rules), system, request)
    if arguments.json:
        print_json(_as_json(found))
    else:
        _print(found, everything=arguments.all)
    return 1 if found.verdict.outcome == ERROR else 0


def _failed(error: PolicyError) -> dict[str, Any]:
    place = None
    if isinstance(error, PolicySyntaxError):
        place = {"file": error.file, "line": error.line}
    return {
        **dict.fromkeys(("target", "user", "default_target", "notify", "autostart")),
        "outcome": ERROR,
        "targets": [],
        "rule": place,
        "skipped": [],
        "traps": [],
        "reason": error.kind,
        "error": str(error),
    }


def _as_json(found: Explanation) -> dict[str, Any]:
    verdict = found.verdict
    decided = verdict.outcome in (ALLOW, ASK)
    failed = verdict.outcome == ERROR
    return {
        "outcome": verdict.outcome,
        "target": verdict.target,
        "user": verdict.user if decided else None,
        "targets": list(verdict.targets),
        "default_target": verdict.default_target,
        "notify": verdict.notify if decided else None,
        "autostart": verdict.autostart if decided else None,
        "notified": verdict.notified,
        "requested_target": verdict.requested,
        "rule": None if verdict.rule is None else _place(verdict.rule),
        "reason": verdict.reason,
        "skipped": [
            {**_place(one.rule), "text": str(one.rule), "why": one.why} for one in found.skipped
        ],
        "traps": list(found.traps),
        "error": _REASONS.get(verdict.reason or "", verdict.reason) if failed else None,
    }


def _place(rule: Rule) -> dict[str, Any]:
    return {"file": rule.file, "line": rule.line}


def _print(found: Explanation, *, everything: bool) -> None:
    verdict = found.verdict
    print(f"{verdict.outcome}: {_what(verdict)}")
    if verdict.rule is not None:
        print(f"by {_text(verdict.rule)}")
    passed = [one for one in found.skipped if everything or one.why != _OTHER_SERVICE]
    if passed:
        print("passed over:")
    for one in passed:
        print(f"  {_text(one.rule)} ({one.why})")
    left_out = len(found.skipped) - len(passed)
    if left_out:
        print(f"and {left_out} rules about other services (--all shows them)")
    for trap in found.traps:
        print(f"beware: {trap}")


def _what(verdict: Verdict) -> str:
    if verdict.outcome == ALLOW:
        text = f"it goes to {verdict.target} as {verdict.user or 'the default user'}"
        return text + ("" if verdict.autostart else ", which has to run already")
    if verdict.outcome == ASK:
        default = verdict.default_target
        offered = ", ".join(verdict.targets)
        return f"offered are {offered}" + (f"; {default} first" if default else "")
    return _REASONS.get(verdict.reason or "", verdict.reason or "nobody says why")


def _text(rule: Rule) -> str:
    line = "implicit" if rule.line is None else rule.line
    return f"{rule.file}:{line}: {rule}"
