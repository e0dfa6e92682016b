"""qrexec-policy-exec: judge one call (qrexec-wire.md section 11.3)."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from insula.client import instance
from insula.client.policy_reading import places_of
from insula.dom0.evaluating import Evaluator, agent_socket
from insula.protocol.errors import ReportableError
from insula.protocol.policy.rules import ALLOW
from insula.protocol.policy.wire import Question
from insula.qrexec.policy_store import PolicyStore


def main(words: Sequence[str] | None = None) -> int:
    """Print the answer; 0 when the call is allowed, 1 when it is not."""
    parser = argparse.ArgumentParser(
        prog="qrexec-policy-exec", description="Say what becomes of a call."
    )
    parser.add_argument("--assume-yes-for-ask", action="store_true")
    parser.add_argument("--just-evaluate", action="store_true")
    parser.add_argument("--path", metavar="DIR", type=Path)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("service", metavar="SERVICE[+ARG]")
    given = parser.parse_args(words)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    question = Question(
        source=given.source,
        target=given.target,
        called=given.service,
        assume_yes=given.assume_yes_for_ask,
        just_evaluate=given.just_evaluate,
    )
    try:
        store = PolicyStore(places_of(given.path))
        lines = Evaluator(store, agent_socket(instance.run())).judge(question)
    except ReportableError as error:
        print(f"qrexec-policy-exec: {error}", file=sys.stderr)
        return 1
    if not given.just_evaluate:
        print("\n".join(lines))
    return 0 if f"result={ALLOW}" in lines else 1


if __name__ == "__main__":
    sys.exit(main())
