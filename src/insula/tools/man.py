"""Man pages of all commands, made from what their parsers know: python -m insula.tools.man DIR."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from insula.tools.command import Parser, parser_of, sub_commands
from insula.tools.scripts import console_scripts, load

_WIDE = 10_000  # columns; roff fills lines itself
_EXITS: dict[int | str, str] = {0: "success", 1: "a failure", 2: "a usage error"}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page of each command into a directory."""
    (directory,) = map(Path, sys.argv[1:] if argv is None else argv)
    directory.mkdir(parents=True, exist_ok=True)
    for name, target in console_scripts().items():
        page = man_page(parser_of(load(target)), name)
        (directory / f"{name}.1").write_text(page, encoding="utf-8")
    return 0


def man_page(parser: Parser, name: str) -> str:
    """A command's page, in roff. name: as it is installed."""
    parts = [
        f'.TH {_quoted(name.upper())} 1 "" {_quoted("insula " + version("insula"))} "Insula"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(_summary(parser.description or name))}",
        ".SH SYNOPSIS",
        *_synopsis(parser),
        ".SH DESCRIPTION",
        *_paragraphs([parser.description or "", *parser.notes]),
        *_arguments("ARGUMENTS", parser, _positionals(parser)),
        *_arguments("OPTIONS", parser, _options(parser)),
        *_commands(parser),
        *_exit_codes(parser),
        *_examples(parser),
    ]
    return "\n".join(parts) + "\n"


def _summary(description: str) -> str:
    sentence = description.partition(". ")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    for one in (parser, *(command for _, command in sub_commands(parser))):
        yield from _paragraphs([line.strip() for line in _usage(one).splitlines()])


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = parser._get_formatter()
    formatter._width = _WIDE
    groups = parser._mutually_exclusive_groups
    formatter.add_usage(parser.usage, parser._actions, groups, prefix="")
    return formatter.format_help()


def _commands(parser: argparse.ArgumentParser, level: str = "") -> Iterator[str]:
    """The sub-commands, and theirs."""
    commands = list(sub_commands(parser))
    if commands and not level:
        yield ".SH COMMANDS"
    helps = _helps(parser)
    for name, command in commands:
        yield f".SS {_quoted(f'{level}{name}')}"
        yield from _paragraphs([command.description or helps.get(name, "")])
        aliases = _aliases(parser, name, command)
        if aliases:
            yield from _paragraphs([f"Also: {', '.join(aliases)}."])
        for action in (*_positionals(command), *_options(command)):
            if "--help" not in action.option_strings:
                yield from _argument(command, action)
        yield from _commands(command, f"{level}{name} ")


def _helps(parser: argparse.ArgumentParser) -> dict[str, str]:
    return {
        choice.dest: choice.help or ""
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action._choices_actions
    }


def _aliases(
    parser: argparse.ArgumentParser, name: str, command: argparse.ArgumentParser
) -> list[str]:
    return [
        other
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for other, found in action.choices.items()
        if found is command and other != name
    ]


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if not action.option_strings
        and action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._SubParsersAction)
    ]


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if action.option_strings and action.help != argparse.SUPPRESS
    ]


def _arguments(
    title: str, parser: argparse.ArgumentParser, actions: Sequence[argparse.Action]
) -> Iterator[str]:
    if actions:
        yield f".SH {title}"
    for action in actions:
        yield from _argument(parser, action)


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    """One option or value with its explanation."""
    yield ".TP"
    formatter = parser._get_formatter()
    metavar = formatter._metavar_formatter(action, action.dest.upper())(1)[0]
    if not action.option_strings:
        yield f"\\fI{_text(metavar)}\\fR"
    else:
        value = ""
        if action.nargs != 0:
            shown = formatter._format_args(action, action.dest.upper())
            value = f" \\fI{_text(shown)}\\fR"
        yield ", ".join(f"\\fB{_text(one)}\\fR" for one in action.option_strings) + value
    yield _text(formatter._expand_help(action) if action.help else "") or "\\&"


def _exit_codes(parser: Parser) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in {**_EXITS, **parser.exit_codes}.items():
        yield from (".TP", f"\\fB{_text(str(code))}\\fR", _text(meaning))


def _examples(parser: Parser) -> Iterator[str]:
    if parser.examples:
        yield ".SH EXAMPLES"
    for line, meaning in parser.examples.items():
        yield from (".TP", f"\\fB{_text(line)}\\fR", _text(meaning))


def _paragraphs(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        if text:
            yield from (".PP", _text(text))


def _text(text: str) -> str:
    """Text that roff shows as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _quoted(text: str) -> str:
    return '"' + _text(text).replace('"', '""') + '"'


if __name__ == "__main__":
    sys.exit(main())
