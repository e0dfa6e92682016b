"""What all commands share: options, errors and exit codes (qvm-tools.md sections 1.2, 1.4)."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from insula.protocol.errors import ReportableError

EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 141
EXIT_INTERRUPTED = 130


class UsageError(ReportableError):
    """The command line cannot be meant: usage and text are shown, exit code 2."""

    exit_code = EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """A parser with the options of every command.

    intermixed: options may stand between names and values; not for a parser with sub-commands.
    """

    intermixed = True

    def __init__(self, prog: str, description: str, **further: Any) -> None:
        super().__init__(prog=prog, description=description, **further)
        self.add_argument("-v", "--verbose", action="count", default=0, help="say more")
        self.add_argument("-q", "--quiet", action="count", default=0, help="say less")
        self.add_argument("--version", action=_Version)
        self.add_argument("--force-root", action="store_true", help=argparse.SUPPRESS)


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        text = "show the version and exit"
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=text)

    def __call__(self, parser: argparse.ArgumentParser, *_given: object) -> None:
        from importlib.metadata import metadata  # noqa: PLC0415 - costs more than all the rest

        package = metadata("insula")
        print(f"{parser.prog} ({package['Summary']}) {package['Version']}")
        print("Copyright the contributors of Insula")
        print("License GPL-3.0-or-later: free software, without any warranty")
        parser.exit()


def run(
    parser: Parser,
    work: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    *,
    prefix: str | None = None,
) -> int:
    """Parse a command line and do its work; prints errors after prefix. Returns the exit code.

    Raises:
        SystemExit: the command line cannot be meant, or asks for help or the version.
    """
    _open_standard_streams()
    try:
        parse = parser.parse_intermixed_args if parser.intermixed else parser.parse_args
        code = work(parse(argv))
        sys.stdout.flush()
    except UsageError as error:
        parser.error(f"{error}\n{error.hint}" if error.hint else str(error))
    except ReportableError as error:
        return show(error, prefix or f"{parser.prog}: error: ")
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _open_standard_streams() -> None:
    """Open what was closed at our start: else a socket gets its number, and is taken for it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def show(error: ReportableError, prefix: str = "Error: ") -> int:
    """Print an error with its way out; returns its exit code."""
    print(f"{prefix}{error}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)
    return error.exit_code


def say(logger: str, text: str) -> None:
    """A line for the person, as a log line of level normal."""
    print(f"{logger}: {text}", file=sys.stderr)


def confirmed(question: str, answers: tuple[str, ...] = ("y", "Y")) -> bool:
    """Ask on the terminal; no answer is a no."""
    try:
        return input(question) in answers
    except EOFError:
        print()
        return False
