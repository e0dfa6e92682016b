"""What a qube that was taken over could reach: by calls, as a template, as a network.

Every call that is allowed counts as a way to the target, whatever its service does: what it does
with what it is sent is not known here. dom0 is an end and no way on: its services are not the
admin domain, and methods that act on a qube lead to that qube.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from insula.protocol.policy.evaluation import Request, Verdict, evaluate
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import ALLOW, ASK, Rule
from insula.protocol.policy.system import ADMIN, SystemInfo, is_admin
from insula.protocol.policy.tokens import DEFAULT, DISPOSABLE, DISPOSABLE_OF

FILES = ("qubes.Filecopy",)
CLIPBOARD = ("qubes.ClipboardPaste",)
_ADMIN_OF_QUBE = "admin.vm."
_WILDCARD = "*"
_ANY_SERVICE = "any.Service"  # what a rule for all services is tried with
_TOO_FAR = 1_000_000

How = Literal["call", "template", "network", "devices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """What a policy does not say of qubes, each by name; disposables by their template."""

    templates: Mapping[str, str] = field(default_factory=dict)
    netvms: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One way from a qube to another. asked: only once the person agreed. called: the service."""

    source: str
    target: str
    how: How
    asked: bool = False
    called: str = ""
    rule: Rule | None = None

    @property
    def why(self) -> str:
        """In words."""
        if self.how == "template":
            return f"{self.target} is made from {self.source}"
        if self.how == "network":
            return f"{self.target} reaches the network through {self.source}"
        if self.how == "devices":
            return f"{self.target} has devices of {self.source}"
        place = ""
        if self.rule is not None:
            place = f" ({self.rule.file}:{self.rule.line})"
        return f"{self.called}{' asks' if self.asked else ''}{place}"


def steps_from(policy: Policy, system: SystemInfo, relations: Relations, source: str) -> list[Step]:
    """All ways that lead from a qube at once, each once, the calls in the order of services."""
    found: dict[tuple[str, str, bool, str], Step] = {}
    for step in (*_related(relations, source), *_calls(policy, system, source)):
        found.setdefault((step.target, step.how, step.asked, step.called), step)
    return list(found.values())


def chain(
    policy: Policy, system: SystemInfo, relations: Relations, source: str, target: str
) -> list[Step] | None:
    """The way with the fewest confirmations, and of those the shortest; None where none leads."""
    queue: list[tuple[int, int, str]] = [(0, 0, source)]
    best: dict[str, tuple[int, int]] = {source: (0, 0)}
    last: dict[str, Step] = {}
    while queue:
        asked, length, here = heapq.heappop(queue)
        if here == target:
            return list(reversed(list(_back(last, source, target))))
        if (asked, length) > best.get(here, (_TOO_FAR, 0)) or (is_admin(here) and here != source):
            continue
        for step in steps_from(policy, system, relations, here):
            cost = (asked + step.asked, length + 1)
            if cost < best.get(step.target, (_TOO_FAR, 0)):
                best[step.target], last[step.target] = cost, step
                heapq.heappush(queue, (*cost, step.target))
    return None


def _back(last: Mapping[str, Step], source: str, target: str) -> Iterator[Step]:
    while target != source:
        yield last[target]
        target = last[target].source


def _related(relations: Relations, source: str) -> Iterator[Step]:
    for name, template in relations.templates.items():
        if template == source:
            yield Step(source=source, target=name, how="template")
    for name, netvm in relations.netvms.items():
        if netvm == source:
            yield Step(source=source, target=name, how="network")
    for name, backends in relations.devices.items():
        if source in backends:
            yield Step(source=source, target=name, how="devices")


def _calls(policy: Policy, system: SystemInfo, source: str) -> Iterator[Step]:
    bases = [DISPOSABLE_OF + base for base in system.bases()]
    targets = [*system.qubes, DISPOSABLE, *bases, DEFAULT]
    for service, argument in services(policy):
        shown = f"{service}{argument if argument != '+' else ''}"
        for target in targets:
            request = Request(service=service, argument=argument, source=source, target=target)
            yield from _reached(evaluate(policy, system, request), target, shown)


def services(policy: Policy) -> list[tuple[str, str]]:
    """Services and arguments that rules are about, in order."""
    return sorted({(rule.service or _ANY_SERVICE, rule.argument or "+") for rule in policy.rules})


def _reached(verdict: Verdict, requested: str, shown: str) -> Iterator[Step]:
    if verdict.outcome == ALLOW and verdict.target is not None:
        reached = [verdict.target]
    elif verdict.outcome == ASK:
        reached = list(verdict.targets)
    else:
        return
    for one in reached:
        target = ADMIN if is_admin(one) else one
        if target == ADMIN and shown.startswith(_ADMIN_OF_QUBE) and not requested.startswith("@"):
            target = requested  # It is done in dom0, to the qube that was named.
        if target != verdict.source:
            yield Step(
                source=verdict.source,
                target=target,
                how="call",
                asked=verdict.outcome == ASK,
                called=shown,
                rule=verdict.rule,
            )
