"""Judging calls by a policy, asking the person where it says so (qrexec-wire.md section 11)."""

import json
import logging
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from insula.client import instance
from insula.client.policy_reading import read_system
from insula.dom0 import qubesd
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.policy.answer import answer_lines, queried
from insula.protocol.policy.evaluation import Request, Verdict, choose
from insula.protocol.policy.rules import ALLOW, ASK, DENY
from insula.protocol.policy.system import SystemInfo
from insula.protocol.policy.wire import Question
from insula.protocol.policy_agent import ASK as ASK_SERVICE
from insula.protocol.policy_agent import DENY as REFUSED
from insula.protocol.policy_agent import NOTIFY as NOTIFY_SERVICE
from insula.protocol.policy_agent import chosen, encode_ask, encode_notify
from insula.qrexec.policy_store import PolicyStore

_AGENT_SOCKET = "policy-agent.sock"
_SYSTEM_SERVICES = Path("/etc/qubes-rpc")  # where a person's agent is on a system without instances
_SYSTEM_INFO = Path("/run/qubesd.internal.sock")
_TIMEOUT = 300.0  # seconds that a person has
_MOST = 4096  # bytes of an answer
_MOST_INFO = 64 << 20  # bytes
_INTERNAL_SOCKET = "qubesd.internal.sock"
_DENIED = [f"result={DENY}"]

log = logging.getLogger(__name__)


class Evaluator:
    """Judges calls. agent: the socket of the program that asks the person."""

    def __init__(self, store: PolicyStore, agent: Path) -> None:
        self._store, self._agent = store, agent
        self._deciding = threading.Lock()

    def judge(self, question: Question) -> list[str]:
        """The lines of the answer."""
        request = Request.of(
            question.called, question.source, question.target, question.requested_source or ""
        )
        try:
            system, described = system_info()
        except (ReportableError, ProtocolError, ValueError) as error:
            log.error("nothing is known of the system: %s", error)
            return _DENIED
        with self._deciding:
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
        answer = self._exchange(ASK_SERVICE, encode_ask(verdict, request, _icons(described)))
        if answer == REFUSED:
            told = verdict.notified_if_refused
            return replace(verdict, outcome=DENY, reason="refused", notified=told, targets=())
        return choose(verdict, system, request, chosen(answer))

    def _tell(self, verdict: Verdict, request: Request) -> None:
        resolution = ALLOW if verdict.outcome == ALLOW else DENY
        self._exchange(NOTIFY_SERVICE, encode_notify(resolution, verdict, request))

    def _exchange(self, service: str, message: bytes) -> bytes:
        """What the agent answers; nothing where there is none."""
        path = self._agent if self._agent.exists() else _SYSTEM_SERVICES / service
        answer = b""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_TIMEOUT)
                connection.connect(str(path))
                connection.sendall(message)
                connection.shutdown(socket.SHUT_WR)
                while len(answer) < _MOST and (more := connection.recv(_MOST)):
                    answer += more
        except OSError as error:
            log.warning("nobody is there to be asked or told: %s", error)
        return answer


def system_info() -> tuple[SystemInfo, dict[str, Any]]:
    """The running system, and its qubes as they are described.

    Without an instance's socket that of the system is asked.

    Raises:
        ReportableError, ValueError: nothing can be learned of it.
    """
    if Path(instance.socket_path(_INTERNAL_SOCKET)).exists() or not _SYSTEM_INFO.exists():
        return read_system(None)
    try:
        content = qubesd.call(
            "internal.GetSystemInfo", "dom0", most=_MOST_INFO, socket_path=_SYSTEM_INFO
        )
    except qubesd.QubesdError as error:
        raise ReportableError(str(error)) from None
    try:
        domains = json.loads(content)["domains"]
    except (ValueError, KeyError, TypeError):
        raise ReportableError(f"{_SYSTEM_INFO} describes no system") from None
    return SystemInfo.from_domains(domains), domains


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
