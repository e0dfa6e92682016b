"""What may follow on a command line, for a shell: python -m insula.tools.complete.

    complete MODULE:FUNCTION line TEXT BREAKS    bash: the line up to the cursor, its word breaks
    complete MODULE:FUNCTION words WORD...       zsh: the words up to the one at the cursor

Prints a candidate a line; for zsh after + or, where more is to follow, -, and with what it means.
Exit code EXIT_FILES and EXIT_DIRECTORIES: names of files are what is wanted. A daemon that does not
answer is no reason to say anything.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from insula.client.errors import QubesException
from insula.protocol.errors import ReportableError
from insula.tools import completions
from insula.tools.command import parser_of
from insula.tools.scripts import load

EXIT_FILES, EXIT_DIRECTORIES = 10, 11
_FILES = {"files": EXIT_FILES, "directories": EXIT_DIRECTORIES}
Candidates = dict[str, str]  # to what each means


def main(argv: Sequence[str] | None = None) -> int:
    """Print what may stand at the cursor."""
    target, kind, *given = sys.argv[1:] if argv is None else argv
    words, breaks = given, ""
    if kind == "line":
        words, breaks = _split(given[0]), given[1]
    *before, current = words
    parser = parser_of(load(target))
    try:
        found = candidates(parser, before, current)
    except (QubesException, ReportableError):
        return 0
    if isinstance(found, int):
        return found
    # bash replaces only what comes after the last of its word breaks.
    cut = 1 + max((current.rfind(one) for one in ":=" if one in breaks), default=-1)
    for one, meaning in found.items():
        if one.startswith(current):
            print(one[cut:] if kind == "line" else _for_zsh(one, meaning))
    return 0


def _for_zsh(one: str, meaning: str) -> str:
    sign = "-" if one.endswith((":", "=")) else "+"
    name = one.replace("\\", "\\\\").replace(":", "\\:")
    return f"{sign}{name}:{' '.join(meaning.split())}" if meaning else sign + name


def _split(line: str) -> list[str]:
    """The words of a line as the shell sees them; the last is the one at its end."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return words if words and not (line[-1:].isspace() and not closing) else [*words, ""]
    return ["", ""]


def candidates(
    parser: argparse.ArgumentParser, before: Sequence[str], current: str
) -> Candidates | int:
    """What may stand after the words before (the first of which is the command), or an exit code.

    Raises:
        QubesException: the daemon does not say.
    """
    place = _Place(parser)
    for word in before[1:]:
        place.take(word)
    option, equals, _ = current.partition("=")
    if equals and (action := place.option(option)) is not None:
        found = _values(action, [*before, option], current[len(option) + 1 :])
        return (
            found
            if isinstance(found, int)
            else {f"{option}={one}": text for one, text in found.items()}
        )
    if place.pending is not None and not current.startswith("-"):
        return _values(place.pending, before, current)
    if current.startswith("-") and not place.only_values:
        return place.options()
    action = place.positional()
    return {} if action is None else _values(action, before, current)


class _Place:
    """Where in a command line we are, as argparse would see it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.pending: argparse.Action | None = None  # an option that waits for its value
        self.only_values = False
        self._enter(parser)

    def _enter(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._left = [one for one in parser._actions if not one.option_strings]

    def option(self, word: str) -> argparse.Action | None:
        """The action of an option, however it was shortened."""
        known = self._parser._option_string_actions
        if word in known or not word.startswith("--"):
            return known.get(word)
        longer = {id(action): action for name, action in known.items() if name.startswith(word)}
        return next(iter(longer.values())) if len(longer) == 1 else None

    def options(self) -> Candidates:
        """All options that a person is told of."""
        return {
            name: action.help or ""
            for name, action in self._parser._option_string_actions.items()
            if action.help != argparse.SUPPRESS
        }

    def positional(self) -> argparse.Action | None:
        """What the next value is for."""
        return self._left[0] if self._left else None

    def take(self, word: str) -> None:
        """Go on by one word."""
        if word == "--" and not self.only_values:
            self.only_values, self.pending = True, None
        elif word.startswith("-") and len(word) > 1 and not self.only_values:
            action = self.option(word)
            waits = action is not None and action.nargs != 0
            self.pending = action if waits else None
        elif self.pending is not None:
            if self.pending.nargs not in ("*", "+"):
                self.pending = None
        elif self._left:
            self._take_value(word)

    def _take_value(self, word: str) -> None:
        action = self._left[0]
        if isinstance(action, argparse._SubParsersAction):
            if word in action.choices:
                self._enter(action.choices[word])
        elif action.nargs not in ("*", "+", argparse.REMAINDER):
            self._left.pop(0)
        elif action.nargs == argparse.REMAINDER:
            self.only_values = True


def _values(action: argparse.Action, before: Sequence[str], current: str) -> Candidates | int:
    if isinstance(action, argparse._SubParsersAction):
        return {one.dest: one.help or "" for one in action._choices_actions}
    if action.choices is not None:
        return dict.fromkeys(map(str, action.choices), "")
    kind = getattr(action, "completed", None)
    if kind in _FILES:
        return _FILES[kind]
    if kind is None:
        return {}
    if callable(kind):
        return dict.fromkeys(kind(before), "")
    return dict.fromkeys(completions.of(kind, before, current), "")


def script(shell: str) -> str:
    """What a shell has to read to complete all commands."""
    from importlib.resources import files  # noqa: PLC0415 - not while completing

    from insula.tools.scripts import console_scripts  # noqa: PLC0415

    scripts = console_scripts()
    table = "\n".join(f"    [{name}]={target}" for name, target in scripts.items())
    text = files("insula.tools").joinpath("files", f"completion.{shell}").read_text()
    filled = text.replace("@PYTHON@", shlex.quote(sys.executable)).replace("@COMMANDS@", table)
    return filled.replace("@NAMES@", " ".join(scripts))


if __name__ == "__main__":
    sys.exit(main())
