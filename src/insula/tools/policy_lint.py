"""qubes-policy-lint: whether files of a policy can be read (qrexec-policy.md section 13.2)."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from insula.protocol.policy.errors import PolicySyntaxError
from insula.protocol.policy.rules import (
    Called,
    Directive,
    Rule,
    lines_of,
    parse_called,
    parse_line,
    parse_old_line,
)
from insula.protocol.policy.tokens import Kind
from insula.tools.command import Parser, completed, run

_STDIN = "-"
_INCLUDE_FOLDER = "include"
_ANY = Called(None, None)
_WORDS = {"!include": 1, "!include-dir": 1, "!include-service": 3, "!compat-4.0": 0}
_OLD_WORDS = {"!include": 1}


class _Problem(NamedTuple):
    line: int
    text: str


def main(argv: Sequence[str] | None = None) -> int:
    """qubes-policy-lint."""
    parser = Parser(
        "qubes-policy-lint",
        "Check files of a policy, each line on its own; what they include is not looked at.",
        plain=True,
        examples={"qubes-policy-lint /etc/qubes/policy.d/30-user.policy": "check one file"},
        exit_codes={1: "a file has errors; those behind it were not checked"},
        notes=("Errors are shown as FILE:LINE: error: MESSAGE.",),
    )
    parser.add_argument(
        "-i", "--include-service", action="store_true", help="the files are of the old syntax"
    )
    parser.add_argument("-s", "--show-line", action="store_true", help="show the line, too")
    text = "what to check; - is standard input"
    completed(parser.add_argument("files", metavar="FILE", nargs="+", help=text), "files")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    check = _old_problems if arguments.include_service else _problems
    for name in arguments.files:
        if _show(name, check, show_line=arguments.show_line):
            return 1
    return 0


def _show(name: str, check: Callable[[str], Iterator[_Problem]], *, show_line: bool) -> bool:
    """Print what is wrong with a file; whether anything is."""
    try:
        text = sys.stdin.read() if name == _STDIN else Path(name).read_text("utf-8")
    except FileNotFoundError:
        print(f"{name}:0: error: File does not exist.")
        return True
    except (OSError, UnicodeDecodeError) as error:
        print(f"{name}:0: error: {error}")
        return True
    lines = dict(lines_of(text))
    found = list(check(text))
    for line, problem in found:
        print(f"{name}:{line}: error: {problem}" + (f": {lines[line]}" if show_line else ""))
    return bool(found)


def _problems(text: str) -> Iterator[_Problem]:
    for number, line in lines_of(text):
        try:
            parsed = parse_line("", number, line)
            if isinstance(parsed, Rule):
                _check_literals(parsed)
            else:
                _check(parsed, _WORDS)
        except PolicySyntaxError as error:
            yield _Problem(number, error.text)


def _old_problems(text: str) -> Iterator[_Problem]:
    for number, line in lines_of(text):
        try:
            parsed = parse_old_line("", number, line, _ANY)
            if isinstance(parsed, Directive):
                _check(parsed, _OLD_WORDS)
        except PolicySyntaxError as error:
            yield _Problem(number, error.text)


def _check(directive: Directive, known: dict[str, int]) -> None:
    """Look at a line that includes others.

    Raises:
        PolicySyntaxError: it cannot be meant so.
    """
    name, words, line = directive.name, directive.words, directive.line
    if name not in known:
        raise PolicySyntaxError("", line, f"unknown: {name}")
    if len(words) != known[name]:
        text = f"{name} takes {known[name]} words, not {len(words)}"
        raise PolicySyntaxError("", line, text)
    if name == "!include-service":
        parse_called("", line, words[0], words[1])
    if name in ("!include", "!include-service"):
        *folders, _file = words[-1].split("/")
        if folders not in ([], [_INCLUDE_FOLDER]):
            text = f"{words[-1]} lies neither in the policy's directory nor in its include/"
            raise PolicySyntaxError("", line, text)


def _check_literals(rule: Rule) -> None:
    """Look at names that no qube can have.

    Raises:
        PolicySyntaxError: there is one.
    """
    for token in (rule.source, rule.target, rule.redirect, rule.default_target):
        if token is not None and token.kind is Kind.LITERAL and token.value.startswith("$"):
            text = f"{token.text} is a keyword of the old syntax; here it begins with @"
            raise PolicySyntaxError("", rule.line or 0, text)


if __name__ == "__main__":
    sys.exit(main())
