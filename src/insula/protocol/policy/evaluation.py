"""What a policy says to one call (qrexec-policy.md section 6)."""

from dataclasses import dataclass, field, replace

from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import ALLOW, ASK, DENY, Rule
from insula.protocol.policy.system import ADMIN, REMOTE, RUNNING, QubeInfo, SystemInfo, is_admin
from insula.protocol.policy.tokens import (
    ADMIN_KEYWORD,
    DEFAULT,
    DISPOSABLE,
    DISPOSABLE_OF,
    REQUESTS,
    Kind,
    Requested,
    Token,
    TokenError,
    expand,
    matches_source,
    matches_target,
    parse_token,
)

ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call. argument: with its "+". requested_source: for whom a relay asks, or empty."""

    service: str
    argument: str
    source: str
    target: str
    requested_source: str = ""

    @classmethod
    def of(cls, called: str, source: str, target: str, requested_source: str = "") -> "Request":
        """From the name that is called, which may have an argument."""
        service, _, argument = called.partition("+")
        return cls(
            service=service,
            argument=f"+{argument}",
            source=source,
            target=target,
            requested_source=requested_source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to happen to a call.

    outcome: allow, deny, ask or error. source: whose call it is by now; requested: the target that
    was asked for, as its meaning is known. reason: why it is refused. notified: whether the person
    is told. notified_if_refused: the same where the person refuses. target: of an allowed call.
    targets, default_target: what an ask offers, or would offer if there were
    anybody to ask.
    """

    outcome: str
    source: str
    requested: str
    rule: Rule | None = None
    reason: str | None = None
    notified: bool = False
    notified_if_refused: bool = False
    target: str | None = None
    targets: tuple[str, ...] = ()
    default_target: str | None = None

    @property
    def user(self) -> str | None:
        """As whom it is run; None: the target's default."""
        return (self.rule.user if self.rule is not None else None) or None

    @property
    def notify(self) -> bool:
        return self.rule is not None and self.rule.notify

    @property
    def autostart(self) -> bool:
        return self.rule is None or self.rule.autostart


@dataclass(frozen=True, slots=True)
class _Refusal(Exception):  # noqa: N818 - no error: it ends an evaluation
    reason: str
    notified: bool = True


@dataclass(slots=True)
class _Evaluation:
    policy: Policy
    system: SystemInfo
    request: Request
    source: str = ""
    requested: Requested = field(default_factory=lambda: Requested(DEFAULT))
    rule: Rule | None = None

    def verdict(self) -> Verdict:
        try:
            self.source = self._source()
            self.requested = self._normalised(self.request.target)
            self.rule = find_rule(
                self.policy, self.system, self.request, self.source, self.requested
            )
            if self.rule is None:
                raise _Refusal("no-match")
            if self.rule.action == DENY:
                raise _Refusal("rule", self.rule.notify)
            return self._allow(self.rule) if self.rule.action == ALLOW else self._ask(self.rule)
        except _Refusal as refusal:
            return self._ended(DENY, reason=refusal.reason, notified=refusal.notified)
        except TokenError:
            return self._ended(ERROR, reason="bad-target-token")

    def chosen(self, rule: Rule, target: str) -> Verdict:
        """The verdict once a person has chosen a target."""
        self.rule = rule
        base = target.removeprefix(DISPOSABLE_OF)
        try:
            if not is_admin(target) and self.system.find(base) is None:
                raise _Refusal("no-target")
            self._check_loop_and_relay(target)
        except _Refusal as refusal:
            return self._ended(DENY, reason=refusal.reason, notified=refusal.notified)
        return self._ended(ALLOW, target=target, notified=rule.notify)

    def _ended(
        self,
        outcome: str,
        *,
        reason: str | None = None,
        notified: bool = False,
        target: str | None = None,
    ) -> Verdict:
        return Verdict(
            outcome=outcome,
            source=self.source or self.request.source,
            requested=self.requested.text,
            rule=self.rule,
            reason=reason,
            # A refusal is told on behalf of the caller, what is allowed on behalf of the source.
            notified=notified
            and self._is_shown(self.source if outcome == ALLOW else self.request.source),
            target=target,
        )

    def _is_shown(self, name: str) -> bool:
        """Whether there is a qube in which something could be said about one."""
        found = self.system.qubes.get(name)
        return found is not None and found.guivm is not None

    def _source(self) -> str:
        """Whose call it is: the caller's, or that of a qube elsewhere for which it speaks."""
        wanted = self.request.requested_source
        if not wanted:
            return self.request.source
        found = self.system.find(wanted)
        if found is None or found.klass != REMOTE or found.relayvm != self.request.source:
            raise _Refusal("bad-requested-source")
        return found.name

    def _normalised(self, text: str) -> Requested:
        token = parse_token(text or DEFAULT, REQUESTS)
        return self._resolved(token)

    def _resolved(self, token: Token) -> Requested:
        """What a token means; a qube that nobody knows is none."""
        match token.kind:
            case Kind.DISPOSABLE_OF:
                base = self.system.find(token.value)
                if base is None or not base.template_for_dispvms:
                    raise _Refusal("not-dispvm-template")
                return Requested(token.text, base=base)
            case Kind.ADMIN:
                return Requested(token.text, qube=_admin(self.system))
            case Kind.LITERAL:
                found = self.system.find(token.value)
                if is_admin(token.value):
                    found = _admin(self.system)
                return Requested(DEFAULT) if found is None else Requested(token.text, qube=found)
        return Requested(token.text)

    def _allow(self, rule: Rule) -> Verdict:
        wanted = self.requested if rule.redirect is None else self._resolved(rule.redirect)
        target = wanted.text
        if target == DEFAULT:
            raise _Refusal("no-target")
        if target == DISPOSABLE:
            base = self.system.default_base(self.source)
            if base is None:
                raise _Refusal("no-dispvm-base")
            target = DISPOSABLE_OF + base
        if target == ADMIN_KEYWORD:
            target = ADMIN
        if not rule.autostart and not self._runs(target):
            raise _Refusal("autostart", rule.notify)
        self._check_loop_and_relay(target)
        return self._ended(ALLOW, target=target, notified=rule.notify)

    def _runs(self, target: str) -> bool:
        """Whether a target need not be started."""
        if is_admin(target):
            return True
        found = None if target.startswith("@") else self.system.find(target)
        return found is not None and found.power_state == RUNNING

    def _check_loop_and_relay(self, target: str) -> None:
        if target == self.source:
            raise _Refusal("loopback")
        found = self.system.find(target)
        if found is not None and found.klass == REMOTE:
            if not found.relayvm:
                raise _Refusal("no-relay")
            if not found.transport_rpc:
                raise _Refusal("no-transport")

    def _ask(self, rule: Rule) -> Verdict:
        targets = self._candidates(rule)
        if not rule.autostart:
            targets = {one for one in targets if self._runs(one)}
        if not targets:
            raise _Refusal("no-ask-targets")
        offered = tuple(sorted(targets))
        if not self._is_shown(self.source):
            refused = self._ended(DENY, reason="no-guivm", notified=rule.notify)
            return replace(refused, targets=offered)
        return replace(
            self._ended(ASK),
            targets=offered,
            default_target=self._default(rule, targets),
            notified_if_refused=rule.notify and self._is_shown(self.request.source),
        )

    def _candidates(self, rule: Rule) -> set[str]:
        if rule.redirect is not None:
            return {ADMIN if rule.redirect.is_admin else rule.redirect.text}
        return candidates(self.policy, self.system, self.request, self.source)

    def _default(self, rule: Rule, targets: set[str]) -> str | None:
        if rule.default_target is None:
            return None
        wanted: str | None = rule.default_target.text
        if rule.default_target.is_admin:
            wanted = ADMIN
        elif wanted == DISPOSABLE:
            base = self.system.default_base(self.source)
            wanted = None if base is None else DISPOSABLE_OF + base
        return wanted if wanted in targets else None


def evaluate(policy: Policy, system: SystemInfo, request: Request) -> Verdict:
    """The verdict on a call. One of ask becomes final by choose."""
    return _Evaluation(policy, system, request).verdict()


def requested_of(system: SystemInfo, request: Request) -> Requested | None:
    """What a call's target means; None where it is refused for its target or its source."""
    evaluation = _Evaluation(Policy(), system, request)
    try:
        evaluation._source()
        return evaluation._normalised(request.target)
    except (_Refusal, TokenError):
        return None


def choose(asked: Verdict, system: SystemInfo, request: Request, target: str) -> Verdict:
    """The verdict once a person has chosen one of the targets that an ask offered.

    A choice that was not offered is a refusal.
    """
    rule = asked.rule
    if asked.outcome != ASK or rule is None or target not in asked.targets:
        return replace(asked, outcome=DENY, reason="not-offered", notified=True, targets=())
    evaluation = _Evaluation(Policy(), system, request, asked.source, Requested(asked.requested))
    return evaluation.chosen(rule, target)


def is_allowed(policy: Policy, system: SystemInfo, request: Request) -> bool:
    """Whether a call is allowed without asking anybody (section 6.9)."""
    return evaluate(policy, system, request).outcome == ALLOW


def find_rule(
    policy: Policy,
    system: SystemInfo,
    request: Request,
    source: str,
    requested: Requested,
) -> Rule | None:
    """The first rule that matches in everything."""
    for rule in policy.about_calls_of(request.service, request.argument, source):
        if matches_source(rule.source, source, system) and matches_target(
            rule.target, requested, source, system
        ):
            return rule
    return None


def candidates(policy: Policy, system: SystemInfo, request: Request, source: str) -> set[str]:
    """What a person may choose from (section 6.6)."""
    found: set[str] = set()
    for rule in reversed(policy.about(request.service, request.argument)):
        if not matches_source(rule.source, source, system):
            continue
        expansion = expand(rule.redirect or rule.target, system)
        found = found - expansion if rule.action == DENY else found | expansion
    if DISPOSABLE in found:
        found.remove(DISPOSABLE)
        if (base := system.default_base(source)) is not None:
            found.add(DISPOSABLE_OF + base)
    if ADMIN_KEYWORD in found:
        found.remove(ADMIN_KEYWORD)
        found.add(ADMIN)
    return {one for one in found - {source} if not _is_internal(one, system)}


def _is_internal(target: str, system: SystemInfo) -> bool:
    found = system.qubes.get(target.removeprefix(DISPOSABLE_OF))
    return found is not None and found.internal


def _admin(system: SystemInfo) -> QubeInfo:
    return system.qubes.get(ADMIN) or QubeInfo(name=ADMIN, klass="AdminVM")
