"""qvm-copy and qvm-move, to a qube that is asked for or named (filecopy.md section 9)."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from insula.filecopy.checking import check
from insula.filecopy.removing import remove
from insula.filecopy.sending import SourceError
from insula.guest.commands.calling import call

_SERVICE, _ANY_NAMES = "qubes.Filecopy", "+allow-all-names"
_PACKER = "/usr/lib/insula/bin/qfile-agent"
_EXIT_USAGE = 1


@dataclass(slots=True)
class _Options:
    progress: bool = True
    ignore_links: bool = False


class _UsageError(Exception):
    """The words are none that the command takes."""


def copy(words: Sequence[str] | None = None) -> int:
    """qvm-copy FILE..."""
    return _main("qvm-copy", words, move=False, named=False)


def move(words: Sequence[str] | None = None) -> int:
    """qvm-move FILE..."""
    return _main("qvm-move", words, move=True, named=False)


def copy_to_vm(words: Sequence[str] | None = None) -> int:
    """qvm-copy-to-vm QUBE FILE..."""
    return _main("qvm-copy-to-vm", words, move=False, named=True)


def move_to_vm(words: Sequence[str] | None = None) -> int:
    """qvm-move-to-vm QUBE FILE..."""
    return _main("qvm-move-to-vm", words, move=True, named=True)


def _main(program: str, words: Sequence[str] | None, *, move: bool, named: bool) -> int:
    usage = _usage(program, move=move, named=named)
    try:
        parsed = _parse(sys.argv[1:] if words is None else words)
        if parsed is None:
            print(usage)
            return 0
        options, rest = parsed
        if len(rest) < 1 + named:
            raise _UsageError("a file is needed" if rest or not named else "a qube is needed")
    except _UsageError as error:
        print(f"{program}: {error}\n{usage}", file=sys.stderr)
        return _EXIT_USAGE
    target = rest.pop(0) if named else "@default"
    paths = [path[:-1] if path.endswith("/") and path != "/" else path for path in rest]
    code = _send(program, target, paths, options)
    if code == 0 and move:
        code = remove(paths)
    if named:
        short = "qvm-move" if move else "qvm-copy"
        print(f"{program}: {short} without a name asks where to, in a window", file=sys.stderr)
    return code


def _parse(words: Sequence[str]) -> tuple[_Options, list[str]] | None:
    options, rest = _Options(), list(words)
    while rest and rest[0].startswith("-"):
        match word := rest.pop(0):
            case "--":
                break
            case "-h" | "--help":
                return None
            case "--with-progress" | "--without-progress":
                options.progress = word == "--with-progress"
            case "--ignore-symlinks" | "--no-ignore-symlinks":
                options.ignore_links = word == "--ignore-symlinks"
            case _:
                raise _UsageError(f"unknown option {word}")
    return options, rest


def _send(program: str, target: str, paths: Sequence[str], options: _Options) -> int:
    try:
        found = check([os.fsencode(path) for path in paths], ignore_links=options.ignore_links)
    except SourceError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    environment = {"FILECOPY_TOTAL_BYTES": str(found.size)}
    if not options.progress:
        environment["PROGRESS_TYPE"] = "none"
    elif os.environ.get("PROGRESS_TYPE") != "gui":  # what a file manager asks for
        environment["PROGRESS_TYPE"] = "console"
    return call(
        target,
        _SERVICE if found.safe else _SERVICE + _ANY_NAMES,
        os.environ.get("QFILE_AGENT", _PACKER),
        *(["--ignore-symlinks"] if options.ignore_links else []),
        "--",
        *paths,
        options=["--filter-escape-chars-stderr"],
        environment=environment,
    )


def _usage(program: str, *, move: bool, named: bool) -> str:
    does = "Moves" if move else "Copies"
    where = "the qube that is named" if named else "the qube that you choose in a window"
    return (
        f"usage: {program} [options] {'QUBE ' if named else ''}FILE...\n\n"
        f"{does} files and directories to {where}.\n\n"
        "  --with-progress, --without-progress      tell how far it is; the default\n"
        "  --ignore-symlinks, --no-ignore-symlinks  leave symbolic links out; not the default\n"
        "  -h, --help                               this text"
    )
