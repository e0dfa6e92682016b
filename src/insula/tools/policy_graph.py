"""qrexec-policy-graph: who may call whom, as a graph in dot (qrexec-policy.md section 13.4)."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from insula.client.policy_reading import places_of, read_system
from insula.protocol.errors import ReportableError
from insula.protocol.policy.evaluation import Request, Verdict, evaluate
from insula.protocol.policy.loading import load
from insula.protocol.policy.policy import Policy
from insula.protocol.policy.rules import ALLOW, ASK, Rule
from insula.protocol.policy.system import SystemInfo
from insula.protocol.policy.tokens import DEFAULT, DISPOSABLE, DISPOSABLE_OF
from insula.qrexec.policy_store import PolicyReader
from insula.tools.command import Parser, completed, run

_COLOURS = {ALLOW: "red", ASK: "orange"}
_WILDCARD = "None"  # as which a rule for all services is tried, and shown
_PLAIN_ARGUMENT = "+"  # as which a rule for all arguments is tried


def main(argv: Sequence[str] | None = None) -> int:
    """qrexec-policy-graph."""
    parser = Parser(
        "qrexec-policy-graph",
        "Draw who may call whom, as a graph in the language of dot.",
        plain=True,
        examples={
            "qrexec-policy-graph --include-ask | dot -Tsvg > policy.svg": "a picture",
            "qrexec-policy-graph --target vault --full-output": "what reaches a qube, and by what",
        },
        notes=("Edges are red where a call is allowed, and orange where somebody is asked.",),
    )
    parser.add_argument("--include-ask", action="store_true", help="draw what is asked for, too")
    for option, metavar, text, kind in (
        ("--source", "QUBE", "only calls of these", "qubes"),
        ("--target", "QUBE", "only calls to these", "qubes"),
        ("--service", "SERVICE", "only these, with or without +ARGUMENT", None),
    ):
        action = parser.add_argument(option, metavar=metavar, nargs="+", help=text)
        if kind is not None:
            completed(action, kind)
    for option, text in (
        ("--output", "write there, and not to standard output"),
        ("--system-info", "a system as internal.GetSystemInfo tells it, not the running one"),
    ):
        completed(parser.add_argument(option, metavar="FILE", type=Path, help=text), "files")
    directory = parser.add_argument(
        "--policy-dir", metavar="DIR", type=Path,
        help="where the policy lies, if it is not that of the running system",
    )  # fmt: skip
    completed(directory, "directories")
    parser.add_argument("--skip-labels", action="store_true", help="no names of services")
    parser.add_argument(
        "--full-output", action="store_true", help="arguments and actions, and what is asked for"
    )
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    system, _ = read_system(arguments.system_info)
    policy = Policy(load(PolicyReader(), places_of(arguments.policy_dir)))
    text = _drawn(policy, system, arguments)
    if arguments.output is None:
        print(text, end="")
        return 0
    try:
        arguments.output.write_text(text, "utf-8")
    except OSError as error:
        raise ReportableError(f"{arguments.output} cannot be written: {error.strerror}") from None
    return 0


def full_graph(policy: Policy, system: SystemInfo) -> str:
    """The graph of all that is allowed or asked for, as --full-output has it."""
    everything = argparse.Namespace(
        source=None,
        target=None,
        service=None,
        include_ask=True,
        full_output=True,
        skip_labels=False,
    )
    return _drawn(policy, system, everything)


def _drawn(policy: Policy, system: SystemInfo, arguments: argparse.Namespace) -> str:
    # A dictionary, as each line is there once, where it comes first.
    lines = dict.fromkeys(_edges(policy, system, arguments))
    return "".join(("digraph g {\n", *(f"  {line}\n" for line in lines), "}\n"))


def _edges(policy: Policy, system: SystemInfo, arguments: argparse.Namespace) -> Iterator[str]:
    drawn = {ALLOW, ASK} if arguments.include_ask or arguments.full_output else {ALLOW}
    targets = _wanted(
        [*system.qubes, DISPOSABLE, *map(DISPOSABLE_OF.__add__, system.bases()), DEFAULT],
        arguments.target,
    )
    for service, argument in _services(policy, arguments.service):
        for source in _wanted(system.qubes, arguments.source):
            for target in targets:
                request = Request(service=service, argument=argument, source=source, target=target)
                verdict = evaluate(policy, system, request)
                if verdict.outcome in drawn and verdict.rule is not None:
                    yield _edge(request, verdict, verdict.rule, arguments)


def _wanted(names: Iterable[str], only: Sequence[str] | None) -> list[str]:
    return [name for name in names if only is None or name in only]


def _services(policy: Policy, only: Sequence[str] | None) -> list[tuple[str, str]]:
    """Services and arguments that rules are about, in order."""
    found = {(rule.service or _WILDCARD, rule.argument or _PLAIN_ARGUMENT) for rule in policy.rules}
    return sorted(
        (service, argument)
        for service, argument in found
        if only is None or service in only or service + argument in only
    )


def _edge(request: Request, verdict: Verdict, rule: Rule, arguments: argparse.Namespace) -> str:
    target = request.target if rule.redirect is None else rule.redirect.text
    ends = f"{_quoted(request.source)} -> {_quoted(target)}"
    colour = f"color={_COLOURS[verdict.outcome]}"
    if arguments.skip_labels:
        return f"{ends} [{colour}];"
    label = request.service
    if arguments.full_output:
        label = f"{request.service}{rule.argument or ''} {_action(rule)}"
    return f"{ends} [label={_quoted(label)} {colour}];"


def _action(rule: Rule) -> str:
    """The action and where it leads, as section 11 has it."""
    words = [rule.action]
    if rule.redirect is not None:
        words.append(f"target={rule.redirect.text}")
    if rule.default_target is not None:
        words.append(f"default_target={rule.default_target.text}")
    if rule.user is not None:
        words.append(f"user={rule.user}")
    return " ".join(words)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    sys.exit(main())
