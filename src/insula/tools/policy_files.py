"""qubes-policy: the files of the policy (qrexec-policy.md section 13.1)."""

import argparse
import re
import sys
from collections.abc import Sequence

from insula.client import admin
from insula.client.errors import QubesException
from insula.tools.command import Parser, UsageError, completed, run

_INCLUDE = "include/"
_NAME = re.compile(r"[A-Za-z0-9+._-]+", re.ASCII)
_ANY = b"any"
_EXIT_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """qubes-policy."""
    parser = Parser(
        "qubes-policy",
        "List, show, replace or remove files of the policy.",
        examples={
            "qubes-policy": "list the files",
            "qubes-policy --get 30-user": "show one",
            "qubes-policy --replace include/admin-local-rwx < rules": "replace one",
        },
        notes=("A change after which the policy could not be read is refused.",),
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-l", "--list", action="store_true", help="list files; the default")
    what.add_argument("-g", "--get", action="store_true", help="show a file")
    what.add_argument(
        "-r", "--replace", action="store_true", help="give a file the content of standard input"
    )
    what.add_argument("-d", "--remove", action="store_true", help="remove a file")
    completed(
        parser.add_argument(
            "name", metavar="[include/]NAME", nargs="?", default="", help="the file"
        ),
        policy_names,
    )
    return run(parser, _run, argv)


def policy_names(_before: Sequence[str]) -> list[str]:
    """Names of all files, for completion."""
    included = (_INCLUDE + name for name in _names("policy.include.List"))
    return [*_names("policy.List"), *included]


def _names(method: str) -> list[str]:
    return admin.ask_dom0(method).decode().split()


def _run(arguments: argparse.Namespace) -> int:
    name: str = arguments.name
    include = name == _INCLUDE[:-1] or name.startswith(_INCLUDE)
    base = name[len(_INCLUDE) :] if include else name
    scope = "policy.include" if include else "policy"
    changing = arguments.get or arguments.replace or arguments.remove
    if changing and _NAME.fullmatch(base) is None:
        raise UsageError("the name of a file is needed")
    if not changing and base:
        raise UsageError("only all files are listed, or those of include/")
    try:
        if arguments.get:
            content = admin.ask_dom0(f"{scope}.Get", base).partition(b"\n")[2]
            print(content.decode("utf-8", "replace").rstrip())
        elif arguments.replace:
            given = sys.stdin.buffer.read()
            admin.ask_dom0(f"{scope}.Replace", base, _ANY + b"\n" + given)
        elif arguments.remove:
            admin.ask_dom0(f"{scope}.Remove", base, _ANY)
        else:
            for one in _names(f"{scope}.List"):
                print(one)
    except QubesException as error:
        print(error, file=sys.stderr)
        return _EXIT_FAILED
    return 0
