"""A policy tried on calls before it is installed: tests of policies (section 17)."""

from collections.abc import Mapping
from typing import Any

from insula.protocol.errors import ProtocolError
from insula.protocol.policy.answer import answer_lines, queried
from insula.protocol.policy.errors import PolicyError, PolicySyntaxError
from insula.protocol.policy.evaluation import ERROR, Request, Verdict, choose, evaluate
from insula.protocol.policy.loading import Files, Places, load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import ALLOW, ASK
from insula.protocol.policy.system import SystemInfo

MOST_CHOICES = 4
_NOT_ALLOWED = ("crash", "recursion")  # what another evaluator fails at is not to be allowed


def system_of(qubes: Mapping[str, Any]) -> SystemInfo:
    """A system as cases describe it.

    Raises:
        ProtocolError: it is described otherwise.
    """
    try:
        domains = {
            name: {**fields, "type": fields["class"], "guivm": fields.get("guivm", "dom0")}
            for name, fields in qubes.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"not a system: {error!r}") from None
    return SystemInfo.from_domains(domains)


def request_of(case: Mapping[str, Any]) -> Request:
    """The call that a case is about.

    Raises:
        ProtocolError: it names none.
    """
    try:
        asked = case["request"]
        return Request.of(
            str(asked["service_and_arg"]),
            str(asked["source"]),
            str(asked["target"]),
            str(asked.get("requested_source") or ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"not a request: {error!r}") from None


def actual(files: Files, places: Places, root: str, system: SystemInfo, request: Request) -> Any:
    """What becomes of a call, in the fields of a case. root: to which its files are relative."""
    refused = {"wire": ["result=deny"], "eval": "deny"}
    try:
        policy = Policy(load(files, places))
    except PolicySyntaxError as error:
        place = {"file": _relative(error.file, root), "line": error.line}
        return {"outcome": ERROR, "kind": error.kind, **place, **refused}
    except PolicyError as error:
        return {"outcome": ERROR, "kind": error.kind, **refused}
    verdict = evaluate(policy, system, request)
    if verdict.outcome == ERROR:
        return {"outcome": ERROR, "kind": verdict.reason, **refused}
    found: dict[str, Any] = {"outcome": verdict.outcome}
    if verdict.rule is not None:
        place = {"file": _relative(verdict.rule.file, root), "line": verdict.rule.line}
        found["rule"] = place
    if not request.requested_source:
        found["eval"] = ALLOW if queried(verdict, assume_yes=True) else "deny"
    if verdict.outcome == ASK:
        return {**found, **_asked(verdict, system, request)}
    found |= {"wire": answer_lines(verdict, system, request), "notified": verdict.notified}
    if verdict.outcome == ALLOW:
        return {**found, "target": verdict.target, **_settings(verdict)}
    return {**found, "reason": verdict.reason}


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What of a call's end is not as it is expected, a line each."""
    if expected.get("kind") in _NOT_ALLOWED:
        return ["outcome: allow, which it must not be"] if found["outcome"] == ALLOW else []
    wanted = dict(expected)
    if "if_chosen" in wanted:
        chosen = wanted["if_chosen"].items()
        wanted["if_chosen"] = {target: lines or ["result=deny"] for target, lines in chosen}
    return [
        f"{name}: expected {one!r}, is {found.get(name)!r}"
        for name, one in wanted.items()
        # No user is the empty one.
        if one != found.get(name) and (one or found.get(name))
    ]


def _settings(verdict: Verdict) -> dict[str, Any]:
    return {"user": verdict.user, "notify": verdict.notify, "autostart": verdict.autostart}


def _asked(verdict: Verdict, system: SystemInfo, request: Request) -> dict[str, Any]:
    offered = list(verdict.targets)
    choices = offered if len(offered) <= MOST_CHOICES else []
    return {
        "targets": offered,
        "default_target": verdict.default_target,
        **_settings(verdict),
        "agent_request": {
            "source": verdict.source,
            "service": request.service,
            "argument": request.argument,
            "targets": offered,
            "default_target": verdict.default_target or "",
        },
        "if_chosen": {
            target: answer_lines(choose(verdict, system, request, target), system, request)
            for target in choices
        },
        "notified_if_refused": verdict.notified_if_refused,
    }


def _relative(path: str, root: str) -> str:
    return path.removeprefix(f"{root}/")
