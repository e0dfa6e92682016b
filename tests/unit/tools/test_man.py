"""Man pages: each command has one, and nothing that its parser knows is missing."""

import argparse
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.tools import man
from insula.tools.command import Parser, parser_of, sub_commands
from insula.tools.scripts import load

_PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
SCRIPTS: dict[str, str] = {
    name: value for name, value in _PROJECT["scripts"].items() if value.startswith("insula.tools.")
}


def plain(page: str) -> str:
    """A page without what is roff's."""
    text = page.replace("\\fB", "").replace("\\fI", "").replace("\\fR", "").replace("\\&", "")
    return text.replace("\\-", "-").replace("\\e", "\\")


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All options of a parser and of its sub-commands, and all that values are called."""
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            yield from action.option_strings
            if not action.option_strings and isinstance(action.metavar, str):
                yield action.metavar
    for name, command in sub_commands(parser):
        yield name
        yield from options(command)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_page_has_every_option(name: str) -> None:
    parser = parser_of(load(SCRIPTS[name]))
    page = plain(man.man_page(parser, name))
    missing = [one for one in options(parser) if one not in page]
    assert missing == []
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"):
        assert f"\n.SH {heading}\n" in page


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_is_called_as_it_is_installed_and_describes_itself(name: str) -> None:
    parser = parser_of(load(SCRIPTS[name]))
    assert parser.prog == name
    assert parser.description
    untold = [
        action.option_strings or action.dest
        for _, one in [("", parser), *sub_commands(parser)]
        for action in one._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert untold == []


def test_what_roff_would_act_upon_is_text() -> None:
    parser = Parser("x", ".so /etc/passwd \\n-", examples={"'x": "a\n.b"}, exit_codes={3: "three"})
    page = man.man_page(parser, "x")
    assert "\n\\&.so /etc/passwd \\en\\-\n" in page
    assert "\n.TP\n\\fB\\&'x\\fR\na .b\n" in page
    assert "\\fB3\\fR\nthree\n" in page


def test_man_shows_the_pages(tmp_path: Path) -> None:
    assert man.main([str(tmp_path / "man1")]) == 0
    page = tmp_path / "man1" / "qvm-ls.1"
    command = shutil.which("man")
    if command is None:
        assert page.read_text().startswith(".TH ")
        return
    shown = subprocess.run(
        [command, "-l", "--warnings", str(page)],
        capture_output=True, text=True, check=True, timeout=60,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert "--raw-data" in shown.stdout
    assert shown.stderr == ""
