"""What all commands share: options, errors and exit codes (qvm-tools.md sections 1.2, 1.4)."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from insula.protocol.errors import ReportableError
from insula.tools import log
from insula.tools.log import debug, say, warn
from insula.tools.mixed import MixedParser

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_INTERRUPTED",
    "EXIT_USAGE",
    "Parser",
    "UsageError",
    "add_json",
    "completed",
    "confirmed",
    "debug",
    "parser_of",
    "print_json",
    "run",
    "say",
    "show",
    "sub_commands",
    "warn",
]

EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 141
EXIT_INTERRUPTED = 130
_VERBOSE_AFTER, _QUIET_AFTER = "verbose_after", "quiet_after"
Completions = Callable[[Sequence[str]], Sequence[str]]  # from the words before to what may follow


class UsageError(ReportableError):
    """The command line cannot be meant: usage and text are shown, exit code 2."""

    exit_code = EXIT_USAGE


class Parser(MixedParser):
    """A parser with the options of every command, unless it is plain.

    examples (command line to what it does), exit_codes (besides 0, 1 and 2) and notes (paragraphs)
    are for the man page. default_command: the sub-command that is meant when none is given.
    """

    def __init__(
        self,
        prog: str,
        description: str,
        *,
        plain: bool = False,
        examples: Mapping[str, str] | None = None,
        exit_codes: Mapping[int | str, str] | None = None,
        notes: Sequence[str] = (),
        default_command: str | None = None,
        **further: Any,
    ) -> None:
        super().__init__(prog=prog, description=description, **further)
        self.examples = examples or {}
        self.exit_codes = exit_codes or {}
        self.notes = notes
        self._default_command = default_command
        self._commands: argparse._SubParsersAction[argparse.ArgumentParser] | None = None
        if plain:
            self.set_defaults(verbose=0, quiet=0)
            return
        self.add_argument("-v", "--verbose", action="count", default=0, help="say more")
        self.add_argument("-q", "--quiet", action="count", default=0, help="say less")
        self.add_argument("--version", action=_Version)
        self.add_argument("--force-root", action="store_true", help=argparse.SUPPRESS)

    def add_commands(
        self, *, metavar: str = "COMMAND", required: bool = True, dest: str = argparse.SUPPRESS
    ) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
        """Sub-commands, whose parsers know what is for all commands as well."""
        self._commands = self.add_subparsers(
            metavar=metavar, required=required, dest=dest, parser_class=_CommandParser
        )
        return self._commands

    def sub_commands(self) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        """Each sub-command once, by the first of its names."""
        return sub_commands(self)

    def format_help(self) -> str:
        """Help, then a usage line for each sub-command."""
        usages = [command.format_usage() for _, command in self.sub_commands()]
        text = super().format_help()
        return "\n".join([text, *usages]) if usages else text

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Read a command line."""
        words = list(sys.argv[1:] if argv is None else argv)
        if self._commands is not None and self._default_command is not None:
            at = self._place_of_command(words)
            if at is not None and not (words[at:] and self._ends(words[at])):
                words.insert(at, self._default_command)
        found = self.parse_args(words)
        found.verbose += getattr(found, _VERBOSE_AFTER, 0)
        found.quiet += getattr(found, _QUIET_AFTER, 0)
        return found

    def _place_of_command(self, words: Sequence[str]) -> int | None:
        """Where the sub-command is or has to be; None where a value before it is missing."""
        before = sum(not one.option_strings and one is not self._commands for one in self._actions)
        at = self._first_word(words, 0)
        for _ in range(before):
            if at >= len(words) or words[at].startswith("-"):
                return None
            at = self._first_word(words, at + 1)
        return at

    def _ends(self, word: str) -> bool:
        """Whether no sub-command is missing before a word."""
        assert self._commands is not None
        return word in self._commands.choices or self._long(word) in ("--help", "--version", "-h")

    def _first_word(self, words: Sequence[str], begin: int) -> int:
        """Where the options that all commands share end."""
        for at in range(begin, len(words)):
            word = words[at]
            short = len(word) > 1 and word[0] == "-" and set(word[1:]) <= {"v", "q"}
            if not short and self._long(word) not in ("--verbose", "--quiet", "--force-root"):
                return at
        return len(words)

    def _long(self, word: str) -> str:
        """An option by its whole name, where it was shortened to what no other begins with."""
        if not self.allow_abbrev or not word.startswith("--") or word == "--":
            return word
        longer = [name for name in self._option_string_actions if name.startswith(word)]
        return longer[0] if len(longer) == 1 else word


class _CommandParser(MixedParser):
    """A sub-command's parser: how much is said may be told after its name, too."""

    def __init__(self, **further: Any) -> None:
        super().__init__(**further)
        for options, dest in (
            (("-v", "--verbose"), _VERBOSE_AFTER),
            (("-q", "--quiet"), _QUIET_AFTER),
        ):
            self.add_argument(
                *options, dest=dest, action="count", default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )  # fmt: skip
        self.add_argument(
            "--force-root", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def _first_word(words: Sequence[str], begin: int) -> int:
    """Where the options that all commands share end."""
    for at in range(begin, len(words)):
        word = words[at]
        short = len(word) > 1 and word[0] == "-" and set(word[1:]) <= {"v", "q"}
        if not short and word not in ("--verbose", "--quiet", "--force-root"):
            return at
    return len(words)


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


def sub_commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The sub-commands of a parser, each once, by the first of its names."""
    seen: set[int] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                if id(command) not in seen:
                    seen.add(id(command))
                    yield name, command


def completed(action: argparse.Action, with_: str | Completions) -> argparse.Action:
    """Say what completes an argument: a kind that tools/complete.py knows, or a function."""
    setattr(action, "completed", with_)  # noqa: B010 - argparse's own class does not have it
    return action


class _ParserWanted(BaseException):
    """Instead of a run: the parser alone was asked for."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


_only_parser = False


def parser_of(main: Callable[[list[str]], int]) -> Parser:
    """The parser of a command, which is not run: for its man page and completion."""
    global _only_parser  # noqa: PLW0603 - commands build their parsers in main
    _only_parser = True
    try:
        main([])
    except _ParserWanted as wanted:
        return wanted.parser
    finally:
        _only_parser = False
    raise TypeError(f"{main.__module__} does not call run()")


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
    if _only_parser:
        raise _ParserWanted(parser)
    _open_standard_streams()
    try:
        arguments = parser.parse(argv)
        _set_level(1 + arguments.verbose - arguments.quiet)
        code = work(arguments)
        sys.stdout.flush()
    except UsageError as error:
        parser.error(f"{error}\n{error.hint}" if error.hint else str(error))
    except ReportableError as error:
        log.traceback()
        return show(error, prefix or f"{parser.prog}: error: ")
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        log.traceback()
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return show(ReportableError(what), prefix or f"{parser.prog}: error: ")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _set_level(level: int) -> None:
    """Say as much as was asked for; where that is everything, each call of the daemon, too."""
    log.set_level(level)
    if level > 1:
        from insula.client import admin  # noqa: PLC0415 - a command without calls does not load it

        admin.observe = lambda text: log.debug("app", text)


def _open_standard_streams() -> None:
    """Open what was closed at our start: else a socket gets its number, and is taken for it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Names may have what a locale does not.
            stream.reconfigure(errors="backslashreplace")


def show(error: ReportableError, prefix: str = "Error: ") -> int:
    """Print an error with its way out; returns its exit code."""
    print(f"{prefix}{error}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)
    return error.exit_code


def confirmed(question: str, answers: tuple[str, ...] = ("y", "Y")) -> bool:
    """Ask on the terminal; no answer is a no."""
    try:
        return input(question) in answers
    except EOFError:
        print()
        return False


def add_json(parser: argparse._ActionsContainer) -> None:
    """--json, for whoever reads with a program; print_json() answers it."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def print_json(value: object) -> None:
    """Print a value for programs."""
    import json  # noqa: PLC0415 - only where it is asked for

    print(json.dumps(value, indent=2, ensure_ascii=False))
