"""The command line of qvm-run (qvm-tools.md section 5)."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from insula.tools.command import Parser, UsageError, completed

USAGE = """qvm-run [options] VMNAME COMMAND [ARG...]
       qvm-run [options] --all [--exclude NAME]... COMMAND [ARG...]
       qvm-run [options] --dispvm[=TEMPLATE] [--] COMMAND [ARG...]"""
_DEFAULT_COLOUR = 31  # red


class RunParser(Parser):
    """Reads what belongs to qvm-run, and leaves the rest to the command."""

    def __init__(self) -> None:
        super().__init__(
            "qvm-run",
            "Run a command in qubes, or in a new disposable.",
            usage=USAGE,
            examples={
                "qvm-run work xterm": "a program with windows",
                "qvm-run -p work 'df -h | head'": "a shell's line, with its output",
                "qvm-run -p --no-gui -u root debian-12 apt-get update": "a program as root",
                "qvm-run -p --dispvm=dvm -- file - < suspicious": "in a disposable of dvm",
                "qvm-run --all --exclude vault 'echo hello'": "in all running qubes but one",
            },
            exit_codes={
                0: "all commands ended with 0",
                1: "a qube was passed over: it does not run (-n), or could not be woken",
                255: "the call itself was refused",
                "other": "the highest status of all commands",
            },
            notes=(
                "Everything after COMMAND belongs to the command, options included. A COMMAND "
                "without ARGs is text for the qube's shell; with ARGs it is a program, whose "
                "arguments no shell looks at.",
                "Without -p standard input, output and error are not connected.",
            ),
        )
        self.add_argument("-u", "--user", metavar="USER", default="DEFAULT", help="as this user")
        self.add_argument(
            "-a", "--autostart", "--auto", action="store_true", help=argparse.SUPPRESS
        )
        self._flag("-n", "--no-autostart", "--no-auto", text="fail where a qube does not run")
        self._flag("-p", "--pass-io", text="connect standard input, output and error")
        self.add_argument(
            "--localcmd", metavar="COMMAND", help="with -p: connect them to this local command"
        )
        self.add_argument(
            "--gui", action="store_true", default=None, help="wait for the qube's session"
        )
        self.add_argument("--no-gui", "--nogui", dest="gui", action="store_false", help="do not")
        self._add_colours()
        self._flag("--service", text="COMMAND is a service, NAME or NAME+ARGUMENT")
        self._flag("--no-shell", text="COMMAND is a program and no text for a shell")
        dispvm = self.add_argument(
            "--dispvm", metavar="TEMPLATE", nargs="?", const="", help="in a new disposable"
        )
        completed(dispvm, "qubes")
        self._flag("--all", text="in all running qubes")
        exclude = self.add_argument(
            "--exclude", metavar="NAME", action="append", default=[], help="with --all: not there"
        )
        completed(exclude, "qubes")
        words = self.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        completed(words, "run-words")

    def _flag(self, *options: str, text: str) -> None:
        self.add_argument(*options, action="store_true", help=text)

    def _add_colours(self) -> None:
        for stream, name in (("output", "output"), ("stderr", "errors")):
            self.add_argument(
                f"--colour-{stream}", f"--color-{stream}", metavar="N", type=int,
                dest=f"colour_{name}", help=f"colour of {name} (an SGR number)",
            )  # fmt: skip
            self.add_argument(
                f"--no-colour-{stream}", f"--no-color-{stream}", action="store_true",
                dest=f"no_colour_{name}", help=f"no colour of {name}",
            )  # fmt: skip
        self.add_argument(
            "--filter-escape-chars", dest="filter", action="store_true", default=None,
            help="keep escape sequences out of the output (default: on a terminal)",
        )  # fmt: skip
        self.add_argument(
            "--no-filter-escape-chars", dest="filter", action="store_false", help="do not"
        )

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse a whole command line; adds qube (None: --all, --dispvm) and command, its words.

        argparse stops at the first word that is no option: options may follow the qube's name,
        and all that follows the command is the command's.
        """
        found = super().parse_args(args, namespace)
        words, open_to_options = _without_dashes(found.words)
        found.qube = None
        if not found.all and found.dispvm is None:
            if not words:
                raise UsageError("give the name of a qube, and a command")
            found.qube, words = words[0], words[1:]
            if open_to_options:
                super().parse_args(words, found)
                words, _ = _without_dashes(found.words)
        found.command = words
        _check(found)
        _settle_streams(found)
        return found


def _without_dashes(words: list[str]) -> tuple[list[str], bool]:
    """Words without the -- before them, and whether there was none."""
    return (words[1:], False) if words[:1] == ["--"] else (words, True)


def _check(found: argparse.Namespace) -> None:
    complaints: tuple[tuple[Any, str], ...] = (
        (not found.command, "give a command (after --dispvm: as --dispvm=TEMPLATE or --dispvm --)"),
        (
            found.all + (found.dispvm is not None) + (found.qube is not None) != 1,
            "give the name of a qube, --all or --dispvm, and only one of them",
        ),
        (found.exclude and not found.all, "--exclude goes with --all"),
        (found.all and found.pass_io and not found.localcmd, "-p is for one qube"),
        (found.localcmd and not found.pass_io, "--localcmd goes with -p"),
        (found.service and found.no_shell, "--no-shell does not go with --service"),
        (found.service and len(found.command) > 1, "a service has no further words"),
    )
    for applies, text in complaints:
        if applies:
            raise UsageError(text)


def _settle_streams(found: argparse.Namespace) -> None:
    """Work out filter_output, filter_errors and both colours (None: none)."""
    output_shown = os.isatty(1)
    for number, stream in ((1, "output"), (2, "errors")):
        filtered = found.filter
        if filtered is None:  # Errors on a terminal are a qube's, wherever its output goes.
            filtered = output_shown or os.isatty(number)
        colour = getattr(found, f"colour_{stream}")
        if colour is not None and not filtered:
            raise UsageError("a colour goes with --filter-escape-chars")
        if colour is None and found.pass_io and filtered and (number == 1 or os.isatty(number)):
            colour = _DEFAULT_COLOUR
        if getattr(found, f"no_colour_{stream}") or (number == 1 and found.localcmd):
            colour = None
        setattr(found, f"filter_{stream}", filtered)
        setattr(found, f"colour_{stream}", colour)
