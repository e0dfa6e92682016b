"""Asking the policy about a call (qrexec-wire.md section 10.2)."""

import socket
import subprocess
from pathlib import Path

from insula.protocol.errors import ProtocolError
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.wire import MAX_ANSWER, Question, parse_answer


class NotJudgedError(Exception):
    """Nobody could say what becomes of the call."""


def judge(question: Question, policy_socket: Path, fallback: str) -> Answer | None:
    """How a call is to be carried out; None where it is denied.

    Raises:
        NotJudgedError: neither the policy daemon nor the fallback program could say.
    """
    try:
        return parse_answer(_ask(question, policy_socket))
    except (OSError, ProtocolError):
        return _run(question, fallback)


def _ask(question: Question, policy_socket: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(policy_socket))
        connection.sendall(question.encode())
        answer = b""
        while len(answer) <= MAX_ANSWER and (more := connection.recv(MAX_ANSWER + 1)):
            answer += more
    return answer


def _run(question: Question, fallback: str) -> Answer | None:
    words = [fallback, "--", question.source, question.target, question.called]
    ours, its = socket.socketpair()
    with ours:
        with its:
            try:
                process = subprocess.Popen(words, stdin=its.fileno(), stdout=its.fileno())
            except OSError as error:
                raise NotJudgedError(f"{fallback}: {error}") from None
        answer = b""
        while len(answer) <= MAX_ANSWER and (more := ours.recv(MAX_ANSWER + 1)):
            answer += more
    if process.wait():
        raise NotJudgedError(f"{fallback} ended with {process.returncode}")
    try:
        return parse_answer(answer)
    except ProtocolError as error:
        raise NotJudgedError(f"{fallback}: {error}") from None
