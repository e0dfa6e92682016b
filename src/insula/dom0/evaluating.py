"""Judging calls by a policy, asking the person where it says so (qrexec-wire.md section 11)."""

import logging
import os
import socket
from pathlib import Path
from typing import Any

from insula.client.policy_reading import read_system
from insula.protocol.errors import ReportableError
from insula.protocol.policy.answer import answer_lines, queried
from insula.protocol.policy.evaluation import Request, Verdict, choose
from insula.protocol.policy.rules import ALLOW, ASK, DENY
from insula.protocol.policy.system import SystemInfo
from insula.protocol.policy.wire import Question
from insula.protocol.policy_agent import chosen, encode_ask, encode_notify
from insula.qrexec.policy_store import PolicyStore

_AGENT_SOCKET = "policy-agent.sock"
_TIMEOUT = 300.0  # seconds that a person has
_MOST = 4096  # bytes of an answer
_DENIED = [f"result={DENY}"]

log = logging.getLogger(__name__)


class Evaluator:
    """Judges calls. agent: the socket of the program that asks the person."""

    def __init__(self, store: PolicyStore, agent: Path) -> None:
        self._store, self._agent = store, agent

    def judge(self, question: Question) -> list[str]:
        """The lines of the answer."""
        request = Request.of(
            question.called, question.source, question.target, question.requested_source or ""
        )
        try:
            system, described = read_system(None)
        except (ReportableError, ValueError) as error:
            log.error("nothing is known of the system: %s", error)
            return _DENIED
        verdict = self._store.decide(request, system)
        if question.just_evaluate:
            allowed = queried(verdict, assume_yes=question.assume_yes)
            return [f"result={ALLOW if allowed else DENY}"]
        if verdict.outcome == ASK:
            verdict = self._chosen(verdict, system, request, described, question)
        if verdict.notified:
            self._tell(verdict, request)
        return answer_lines(verdict, system, request)

    def _chosen(
        self,
        verdict: Verdict,
        system: SystemInfo,
        request: Request,
        described: dict[str, Any],
        question: Question,
    ) -> Verdict:
        if question.assume_yes:
            return choose(verdict, system, request, verdict.requested)
        asked = encode_ask(verdict, request, _icons(described))
        return choose(verdict, system, request, chosen(self._exchange(asked)))

    def _tell(self, verdict: Verdict, request: Request) -> None:
        resolution = ALLOW if verdict.outcome == ALLOW else DENY
        self._exchange(encode_notify(resolution, verdict, request))

    def _exchange(self, message: bytes) -> bytes:
        """What the agent answers; nothing where there is none."""
        answer = b""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_TIMEOUT)
                connection.connect(str(self._agent))
                connection.sendall(message)
                connection.shutdown(socket.SHUT_WR)
                while len(answer) < _MOST and (more := connection.recv(_MOST)):
                    answer += more
        except OSError as error:
            log.warning("nobody is there to be asked or told: %s", error)
        return answer


def agent_socket(run: Path) -> Path:
    """The socket of an instance's agent; QREXEC_POLICY_AGENT names another."""
    return Path(os.environ.get("QREXEC_POLICY_AGENT") or run / _AGENT_SOCKET)


def _icons(described: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, fields in described.items():
        found[name] = str(fields.get("icon") or "")
        if fields.get("template_for_dispvms"):
            found[f"@dispvm:{name}"] = str(fields.get("icon") or "").replace("appvm-", "dispvm-")
    return found
