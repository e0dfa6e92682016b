"""qrexec-policy-exec: judge one call (qrexec-wire.md section 11.3)."""

import argparse
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from insula.client import instance
from insula.client.policy_reading import places_of
from insula.dom0.carrying import DISPOSABLE, NotCarriedOutError, new_disposable, start
from insula.dom0.evaluating import Evaluator, agent_socket
from insula.protocol.errors import ReportableError
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.rules import ALLOW
from insula.protocol.policy.system import is_admin
from insula.protocol.policy.wire import Question, parse_answer
from insula.qrexec.policy_store import PolicyStore

_WORDS, _OLDER_WORDS = 3, 5
_CLIENT = "qrexec-client"


def main(words: Sequence[str] | None = None) -> int:
    """Print the answer; 0 when the call is allowed, 1 when it is not."""
    parser = argparse.ArgumentParser(
        prog="qrexec-policy-exec",
        usage="%(prog)s [options] [--] SOURCE TARGET SERVICE[+ARG]",
        description="Say what becomes of a call. An older form, DOMAIN-ID SOURCE TARGET "
        "SERVICE[+ARG] REQUEST-ID, also carries it out.",
    )
    parser.add_argument("--assume-yes-for-ask", action="store_true")
    parser.add_argument("--just-evaluate", action="store_true")
    parser.add_argument("--path", metavar="DIR", type=Path)
    parser.add_argument("words", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if len(given.words) not in (_WORDS, _OLDER_WORDS):
        parser.error("a source, a target and a service are needed")
    is_older = len(given.words) == _OLDER_WORDS
    source, target, called = given.words[1:4] if is_older else given.words
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    question = Question(
        source=source,
        target=target,
        called=called,
        assume_yes=given.assume_yes_for_ask,
        just_evaluate=given.just_evaluate,
    )
    try:
        store = PolicyStore(places_of(given.path))
        lines = Evaluator(store, agent_socket(instance.run())).judge(question)
        if is_older and not given.just_evaluate:
            answer = parse_answer("\n".join(lines).encode())
            return 1 if answer is None else _carry_out(answer, question, given.words)
    except (ReportableError, NotCarriedOutError) as error:
        print(f"qrexec-policy-exec: {error}", file=sys.stderr)
        return 1
    if not given.just_evaluate:
        print("\n".join(lines))
    return 0 if f"result={ALLOW}" in lines else 1


def _carry_out(answer: Answer, question: Question, words: Sequence[str]) -> int:
    """Have a call connected, as policies once did themselves."""
    service = answer.service or question.called
    service = service if "+" in service else f"{service}+"
    target, options = answer.target, "-Ed"
    if is_admin(target):
        kind = "keyword" if answer.requested.startswith("@") else "name"
        asked = answer.requested.removeprefix("@")
        command = f"QUBESRPC {service} {question.source} {kind} {asked}"
    else:
        command = f"{answer.user}:QUBESRPC {service} {answer.source or question.source}"
        if target.startswith(DISPOSABLE):
            target, options = new_disposable(target), "-EWkd"
        if answer.autostart:
            start(target)
    call = f"{words[-1]},{question.source},{words[0]}"
    client = shutil.which(_CLIENT) or str(Path(sys.argv[0]).with_name(_CLIENT))
    return subprocess.run(
        [client, options, target, "-c", call, "--", command], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
