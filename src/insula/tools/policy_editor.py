"""qubes-policy-editor: change a file of the policy in an editor (qrexec-policy.md section 13.3)."""

import argparse
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from insula.client import admin
from insula.client.errors import QubesException
from insula.tools import policy_lint
from insula.tools.command import Parser, completed, run, say, show
from insula.tools.policy_files import policy_names

_PROGRAM = "qubes-policy-editor"
_DEFAULT = "30-user"
_INCLUDE, _SUFFIX = "include/", ".policy"
_MISSING = "PolicyAdminFileNotFoundException"
_NEW = "new"


def main(argv: Sequence[str] | None = None) -> int:
    """qubes-policy-editor."""
    parser = Parser(
        _PROGRAM,
        "Change a file of the policy in an editor; it is checked before it is saved.",
        examples={_PROGRAM: f"change {_DEFAULT}, where your own rules are"},
        notes=("The editor is $VISUAL, else $EDITOR, else vi.",),
    )
    completed(
        parser.add_argument(
            "file", metavar="[include/]FILE", nargs="?", default=_DEFAULT, help="the file"
        ),
        policy_names,
    )
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    name = arguments.file.removesuffix(_SUFFIX)
    include = name.startswith(_INCLUDE)
    base = name.removeprefix(_INCLUDE)
    scope = "policy.include" if include else "policy"
    token, content = _get(scope, base)
    with tempfile.TemporaryDirectory(prefix="qubes-policy-") as directory:
        path = Path(directory, base + ("" if include else _SUFFIX))
        path.write_bytes(content)
        while True:
            code = _edit(path)
            if code:
                say(_PROGRAM, f"the editor ended with {code}; nothing was changed")
                return code
            edited = path.read_bytes()
            if edited == content:
                say(_PROGRAM, "nothing was changed")
                return 0
            if _is_fine(path, include=include) and _saved(scope, base, token, edited):
                return 0
            if not _again():
                return 1


def _get(scope: str, name: str) -> tuple[str, bytes]:
    """A file's token and content; those of one that is not there yet."""
    try:
        token, _, content = admin.ask_dom0(f"{scope}.Get", name).partition(b"\n")
    except QubesException as error:
        if error.kind == _MISSING:
            return _NEW, b""
        raise
    return token.decode("ascii"), content


def _edit(path: Path) -> int:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    return subprocess.run([*shlex.split(editor), str(path)], check=False).returncode


def _is_fine(path: Path, *, include: bool) -> bool:
    options = ["--show-line", *(["--include-service"] if include else [])]
    return policy_lint.main([*options, str(path)]) == 0


def _saved(scope: str, name: str, token: str, content: bytes) -> bool:
    try:
        admin.ask_dom0(f"{scope}.Replace", name, token.encode() + b"\n" + content)
    except QubesException as error:
        show(error)
        return False
    return True


def _again() -> bool:
    """Whether the person wants to go on with what they wrote."""
    while True:
        try:
            answer = input("(e)dit again or (q)uit without saving? ").strip().lower()
        except EOFError:
            return False
        if answer in ("e", "q"):
            return answer == "e"
