"""What the daemon of a qube is told of a verdict (qrexec-wire.md sections 11.2 and 13)."""

from dataclasses import dataclass

from insula.protocol.policy.evaluation import Request, Verdict
from insula.protocol.policy.rules import ALLOW, DENY
from insula.protocol.policy.system import ADMIN, REMOTE, SystemInfo, is_admin
from insula.protocol.policy.tokens import DISPOSABLE_OF

DEFAULT_USER = "DEFAULT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How an allowed call is carried out.

    target: dom0, a qube's name, or @dispvm: and the name of the template of a new disposable.
    uuid: the same with uuid: and its UUID, if the target is no dom0. requested: what was asked for.
    service: what is called in place of what was asked for, with its argument; for a qube that is
    elsewhere. source: who is said to call, where it is not the caller.
    """

    user: str
    target: str
    uuid: str | None
    autostart: bool
    requested: str
    service: str | None = None
    source: str | None = None


def carried_out(verdict: Verdict, system: SystemInfo, request: Request) -> Answer | None:
    """How a call that is decided is carried out; None where it is refused."""
    if verdict.outcome != ALLOW or verdict.target is None:
        return None
    target, user, service = verdict.target, verdict.user or DEFAULT_USER, None
    found = system.find(target)
    uuid = None
    if target.startswith(DISPOSABLE_OF):
        base = system.find(target.removeprefix(DISPOSABLE_OF))
        uuid = f"{DISPOSABLE_OF}uuid:{base.uuid}" if base is not None else None
    elif is_admin(target):
        target = ADMIN
    elif found is not None and found.klass == REMOTE and found.relayvm is not None:
        relay = system.find(found.relayvm)
        uuid = f"uuid:{relay.uuid}" if relay is not None else None
        asked = f"{verdict.requested}+{request.service}{request.argument}"
        service = f"{found.transport_rpc}+{asked}"
        target, user = found.relayvm, DEFAULT_USER
    elif found is not None:
        uuid = f"uuid:{found.uuid}"
    return Answer(
        user=user,
        target=target,
        uuid=uuid,
        autostart=verdict.autostart,
        requested=verdict.requested,
        service=service,
        source=verdict.source if request.requested_source and not is_admin(target) else None,
    )


def answer_lines(verdict: Verdict, system: SystemInfo, request: Request) -> list[str]:
    """The lines of an answer to a call that is decided."""
    answer = carried_out(verdict, system, request)
    if answer is None:
        return [f"result={DENY}"]
    return [
        f"user={answer.user}",
        f"result={ALLOW}",
        f"target={answer.target}",
        *([f"target_uuid={answer.uuid}"] if answer.uuid is not None else []),
        f"autostart={answer.autostart}",
        f"requested_target={answer.requested}",
        *([f"service={answer.service}"] if answer.service is not None else []),
        *([f"policy_source={answer.source}"] if answer.source is not None else []),
    ]


def queried(verdict: Verdict, *, assume_yes: bool) -> bool:
    """Whether a mere query is answered with allow (qrexec-policy.md section 6.9)."""
    if verdict.outcome == ALLOW or verdict.reason in ("loopback", "no-relay", "no-transport"):
        return True
    return assume_yes and verdict.requested in verdict.targets
