"""What holds for every command that is installed."""

import re
from pathlib import Path

import pytest

from insula.tools import qvm_notes
from insula.tools.command import parser_of, sub_commands
from insula.tools.scripts import load
from tests.unit.tools.conftest import Run
from tests.unit.tools.test_man import SCRIPTS

PLAIN = ("qubesd-query", "qvm-console", "qubes-guivm-session")
PREFIXES = ("admin.", "qubes-policy", "qrexec-")
FOR_PEOPLE = [name for name in SCRIPTS if name not in PLAIN and not name.startswith(PREFIXES)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_no_error_and_shows_every_sub_command(run: Run, name: str) -> None:
    main = load(SCRIPTS[name])
    usages = [command.format_usage() for _, command in sub_commands(parser_of(main))]
    for option in ("--help", "-h"):
        done = run(main, option)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"usage: {name} ")
        assert all(usage in done.out for usage in usages)


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_the_version_is_told_on_a_line_of_its_own(run: Run, name: str) -> None:
    done = run(load(SCRIPTS[name]), "--version")
    assert (done.code, done.err) == (0, "")
    first, second, third = done.out.splitlines()
    assert re.fullmatch(rf"{name} \(.+\) \d+\.\d+\.\d+", first)
    assert second.startswith("Copyright")
    assert third.startswith("License")


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_option_is_a_usage_error(run: Run, name: str) -> None:
    done = run(load(SCRIPTS[name]), "--no-such-option-as-this")
    assert done.code == 2
    assert done.err.startswith("usage: ")
    assert re.search(rf"^{name}(?: [a-z]+)?: error: ", done.err, re.MULTILINE)


def test_what_the_system_refuses_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_given: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(qvm_notes, "App", refuse)
    done = run(qvm_notes.main, "work", "-p")
    assert (done.code, done.err) == (1, f"qvm-notes: {tmp_path}: Permission denied\n")
