"""What the daemon of a qube is told of a verdict (qrexec-wire.md sections 11.2 and 13)."""

from insula.protocol.policy.evaluation import Request, Verdict
from insula.protocol.policy.rules import ALLOW, DENY
from insula.protocol.policy.system import REMOTE, SystemInfo, is_admin
from insula.protocol.policy.tokens import DISPOSABLE_OF

DEFAULT_USER = "DEFAULT"


def answer_lines(verdict: Verdict, system: SystemInfo, request: Request) -> list[str]:
    """The lines of an answer to a call that is decided."""
    if verdict.outcome != ALLOW or verdict.target is None:
        return [f"result={DENY}"]
    target, user, further = verdict.target, verdict.user or DEFAULT_USER, []
    found = system.find(target)
    uuid = None
    if target.startswith(DISPOSABLE_OF):
        base = system.find(target.removeprefix(DISPOSABLE_OF))
        uuid = f"{DISPOSABLE_OF}uuid:{base.uuid}" if base is not None else None
    elif is_admin(target):
        target = "dom0"
    elif found is not None and found.klass == REMOTE and found.relayvm is not None:
        relay = system.find(found.relayvm)
        uuid = f"uuid:{relay.uuid}" if relay is not None else None
        asked = f"{verdict.requested}+{request.service}{request.argument}"
        further.append(f"service={found.transport_rpc}+{asked}")
        target, user = found.relayvm, DEFAULT_USER
    elif found is not None:
        uuid = f"uuid:{found.uuid}"
    if request.requested_source and not is_admin(target):
        further.append(f"policy_source={verdict.source}")
    return [
        f"user={user}",
        f"result={ALLOW}",
        f"target={target}",
        *([f"target_uuid={uuid}"] if uuid is not None else []),
        f"autostart={verdict.autostart}",
        f"requested_target={verdict.requested}",
        *further,
    ]


def queried(verdict: Verdict, *, assume_yes: bool) -> bool:
    """Whether a mere query is answered with allow (qrexec-policy.md section 6.9)."""
    if verdict.outcome == ALLOW or verdict.reason in ("loopback", "no-relay", "no-transport"):
        return True
    return assume_yes and verdict.requested in verdict.targets
