"""What becomes of a call that a qube asks for: the policy's word, and a person's where it asks."""

import asyncio

from insula.daemon.lifecycle.policy_agent import PolicyAgent
from insula.daemon.model.described import domains
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System
from insula.protocol.policy.answer import Answer, carried_out, queried
from insula.protocol.policy.evaluation import Request, choose
from insula.protocol.policy.rules import ALLOW, ASK, DENY
from insula.protocol.policy.system import ADMIN, SystemInfo
from insula.qrexec.policy_store import PolicyStore


class Deciding:
    """Decides about calls."""

    def __init__(self, system: System, policy: PolicyStore, agent: PolicyAgent) -> None:
        self._system, self._policy, self._agent = system, policy, agent
        self._described: SystemInfo | None = None

    async def __call__(self, request: Request) -> Answer | None:
        """How a call is to be carried out; None where it is refused."""
        verdict = self._policy.decide(request, self._info())
        if verdict.outcome == ASK:
            chosen = await self._agent.ask(verdict, request)
            told_if_refused = verdict.notified_if_refused
            verdict = choose(verdict, self._info(), request, chosen or "")
            if chosen is None and not told_if_refused:
                return None
        if verdict.notified:
            self._agent.tell(ALLOW if verdict.outcome == ALLOW else DENY, request, verdict)
        return carried_out(verdict, self._info(), request)

    def allows(self, service: str, argument: str, source: Qube, target: Qube | None) -> bool:
        """Whether a call is allowed without asking anybody; no target is the admin domain.

        target may be a qube that was removed just now.
        """
        info = self._info()
        if target is not None and target.uuid not in self._system.qubes:
            info = SystemInfo.from_domains(domains(self._system, target))
        request = Request(
            service=service,
            argument=f"+{argument}",
            source=source.name,
            target=ADMIN if target is None else target.name,
        )
        return self._policy.decide(request, info).outcome == ALLOW

    def would_allow(self, service: str, source: str, target: str) -> bool:
        """Whether a call from a qube to another is allowed, by the person who is not asked here."""
        request = Request(service=service, argument="+", source=source, target=target)
        return queried(self._policy.decide(request, self._info()), assume_yes=True)

    def _info(self) -> SystemInfo:
        """The system as it is in this turn of the loop; many are asked about in one turn."""
        if self._described is None:
            self._described = SystemInfo.from_domains(domains(self._system))
            asyncio.get_running_loop().call_soon(self._forget)
        return self._described

    def _forget(self) -> None:
        self._described = None
