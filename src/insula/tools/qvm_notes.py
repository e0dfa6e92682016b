"""qvm-notes: what somebody wants to remember about a qube."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, UsageError, completed, confirmed, run, say

EXIT_NOT_CONFIRMED = 2
_PROGRAM = "qvm-notes"
_MAX_NOTES = 256_000  # bytes; admin-api.md section 4.10
_DEFAULT_EDITOR = "vi"


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-notes."""
    parser = Parser(
        _PROGRAM,
        "Edit, show and change the notes about a qube. Without an option they are edited.",
        examples={
            "qvm-notes work": "edit them with $VISUAL, $EDITOR or vi",
            "qvm-notes --append 'renewed the key' work": "add a line",
        },
        exit_codes={EXIT_NOT_CONFIRMED: "--delete was not confirmed, or a usage error"},
    )
    names.add_one(parser)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("-e", "--edit", action="store_true", help="edit them (the default)")
    action.add_argument("-p", "--print", action="store_true", help="show them")
    file = action.add_argument("-i", "--import", metavar="FILE", help="take them from a file")
    completed(file, "files")
    action.add_argument("-s", "--set", metavar="TEXT", help="set them to a text")
    action.add_argument("--append", metavar="TEXT", help="add a text")
    action.add_argument("-d", "--delete", action="store_true", help="delete them")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    return run(parser, _run, argv, prefix=f"{_PROGRAM}: ")


def _run(arguments: argparse.Namespace) -> int:
    qube = names.find_one(App(), arguments)
    given = vars(arguments)
    if arguments.print:
        print(_notes(qube))
    elif given["import"] is not None:
        _set(qube, _read(Path(given["import"])))
    elif arguments.set is not None:
        _set(qube, arguments.set)
    elif arguments.append is not None:
        notes = _notes(qube)
        begun = "\n" if notes and not notes.endswith("\n") else ""
        _set(qube, notes + begun + arguments.append)
    elif arguments.delete:
        if not arguments.force and not confirmed(f"Delete the notes of {qube}? [y/N] "):
            return EXIT_NOT_CONFIRMED
        _set(qube, "")
    else:
        _edit(qube)
    return 0


def _notes(qube: Qube) -> str:
    return qube.call("admin.vm.notes.Get").decode()


def _set(qube: Qube, notes: str) -> None:
    try:
        content = notes.encode()
    except UnicodeEncodeError:
        raise UsageError("notes are UTF-8 text") from None
    if len(content) > _MAX_NOTES:
        raise ReportableError(f"notes of {len(content)} bytes, the limit is {_MAX_NOTES}")
    qube.call("admin.vm.notes.Set", payload=content)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ReportableError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ReportableError(f"{path} is not UTF-8 text") from None


def _edit(qube: Qube) -> None:
    """Have them edited, and keep them when the file was written meanwhile."""
    import tempfile  # noqa: PLC0415 - only for this

    descriptor, name = tempfile.mkstemp(prefix=f"{qube}_qube_", suffix="_notes.txt")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_notes(qube).encode())
        # Back, for an editor may be done before the clock of the file system has moved on.
        before = path.stat().st_mtime_ns - 10**9
        os.utime(path, ns=(before, before))
        _run_editor(path)
        if not path.exists():
            raise ReportableError("the edited file is gone; the notes are as they were")
        if path.stat().st_mtime_ns == before:
            say(_PROGRAM, "nothing was changed")
        else:
            _set(qube, _read(path))
    finally:
        path.unlink(missing_ok=True)


def _run_editor(path: Path) -> None:
    import shlex  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _DEFAULT_EDITOR
    try:
        code = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        raise ReportableError(f"the editor {editor!r} cannot be run: {error}") from None
    if code:
        raise ReportableError(f"the editor ended with status {code}; the notes are as they were")
