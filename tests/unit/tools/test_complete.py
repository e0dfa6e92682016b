"""Completion: what is offered, and that a shell gets it."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from insula.tools import complete
from insula.tools import insula as insula_command
from insula.tools.command import Parser, completed
from insula.tools.command import run as run_command
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, answer
from tests.unit.tools.test_man import SCRIPTS

VOLUME = f"{__name__}:volume_command"


def volume_command(argv: list[str]) -> int:
    """A command with sub-commands, for what no other has."""
    parser = Parser("x", "Do.")
    info = parser.add_commands().add_parser("info")
    completed(info.add_argument("volume"), "volumes")
    return run_command(parser, lambda _arguments: 0, argv)


@pytest.fixture
def qubes(daemon: FakeDaemon) -> FakeDaemon:
    properties = {
        "netvm": answer("", "vm"),
        "autostart": answer("False", "bool"),
        "label": answer("red", "label"),
        "maxmem": answer("1", "int"),
    }
    daemon.add(FakeQube("work", properties=properties, tags={"mine"}))
    daemon.add(FakeQube("debian-12", "TemplateVM", properties={"memory": answer("1", "int")}))
    work = daemon.qubes["work"]
    work.features = {"gui": "1", "service.cups": "1", "supported-service.crond": "1"}
    work.volumes = {"root": {}, "private": {}}
    return daemon


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("qvm-start ", "debian-12 dom0 work"),
        ("qvm-start -q wo", "work"),
        ("qvm-start --exclude w", "work"),
        ("qvm-start --skip", "--skip-if-running"),
        ("qvm-check work ", "debian-12 dom0 work"),
        ("qvm-prefs work ", "autostart label maxmem netvm"),
        ("qvm-prefs -D work a", "autostart"),
        ("qvm-prefs work autostart ", "False True"),
        ("qvm-prefs work netvm ", "debian-12 dom0 none work"),
        ("qvm-prefs work label gr", "gray green"),
        ("qvm-prefs work maxmem ", ""),
        ("qvm-prefs ", "debian-12 dom0 work"),
        ("qubes-prefs ", "default_dispvm"),
        ("qubes-prefs default_dispvm w", "work"),
        ("qvm-features work ", "gui service.cups supported-service.crond"),
        ("qvm-service work ", "crond cups"),
        ("qvm-service work cups o", "off on"),
        ("qvm-tags work del ", "mine"),
        ("qvm-tags work a", "a add"),
        ("qvm-ls --class T", "TemplateVM"),
        ("qvm-ls --tags ", "mine"),
        ("qvm-ls --format n", "network"),
        ("qvm-ls -O name,priv-u", "name,priv-used"),
        ("qvm-ls -O name,autos", "name,autostart"),
        ("qvm-run --user root wo", "work"),
        ("qvm-run work -- ", ""),
        ("qvm-run work l", ""),
        ("qvm-run --dispvm=wo", "work"),
        ("qvm-run --all w", ""),
        ("qvm-create --label=bl", "black blue"),
        ("qvm-create -C App", "AppVM"),
        ("insula temp", "template"),
        ("insula template ", "build"),
        ("insula completion z", "zsh"),
        ("insula status --j", "--json"),
        ("qvm-ls 'de", "debian-12"),
    ],
)
def test_what_is_offered(run: Run, qubes: FakeDaemon, line: str, offered: str) -> None:
    assert qubes
    target = SCRIPTS[line.partition(" ")[0]]
    done = run(complete.main, target, "line", line, " =:")
    assert (done.code, done.err) == (0, "")
    assert sorted(done.out.split()) == offered.split()


def test_where_colons_break_words_only_the_rest_is_offered(run: Run, qubes: FakeDaemon) -> None:
    assert qubes
    assert run(complete.main, VOLUME, "line", "x info wo", " :").out == "work:\n"
    assert run(complete.main, VOLUME, "line", "x info work:", " :").out == "root\nprivate\n"
    assert run(complete.main, VOLUME, "line", "x info work:p", " ").out == "work:private\n"


@pytest.mark.parametrize(
    ("line", "code"), [("qvm-notes work --import ", 10), ("qvm-create -r ", 10)]
)
def test_files_are_the_shells(run: Run, line: str, code: int) -> None:
    done = run(complete.main, SCRIPTS[line.partition(" ")[0]], "line", line, "")
    assert (done.code, done.out) == (code, "")


def test_a_daemon_that_is_down_is_silence(run: Run) -> None:
    done = run(complete.main, SCRIPTS["qvm-start"], "line", "qvm-start ", "")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_zsh_gets_what_each_means(run: Run, qubes: FakeDaemon) -> None:
    assert qubes
    done = run(complete.main, SCRIPTS["qvm-ls"], "words", "qvm-ls", "--rev")
    assert done.out == "+--reverse:sort the other way round\n"
    done = run(complete.main, VOLUME, "words", "x", "info", "work:p")
    assert done.out == "+work\\:private\n"
    done = run(complete.main, VOLUME, "words", "x", "info", "wo")
    assert done.out == "-work\\:\n"


def asked_of_bash(script: Path, line: str) -> list[str]:
    """What bash makes of a line with the cursor at its end."""
    program = (
        f"set -e; source {script}; COMP_LINE=$1; COMP_POINT=${{#1}}; "
        '_insula "$2" "${1##* }" ""; printf "%s\\n" "${COMPREPLY[@]}"; complete -p "$2" >&2'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", line, line.partition(" ")[0]],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr.startswith("complete -F _insula ")
    return sorted(done.stdout.split())


def test_bash_offers_it(run: Run, qubes: FakeDaemon, tmp_path: Path) -> None:
    assert qubes
    script = tmp_path / "completion"
    script.write_text(run(insula_command.main, "completion", "bash").out)
    assert asked_of_bash(script, "qvm-prefs work net") == ["netvm"]
    assert asked_of_bash(script, "qvm-create --label=bl") == ["black", "blue"]
    assert asked_of_bash(script, "qvm-start none") == []
    (tmp_path / "a file").touch()
    assert asked_of_bash(script, f"qvm-notes work -i {tmp_path}/comp") == [str(script)]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_all_commands_are_in_a_shells_script(run: Run, shell: str) -> None:
    text = run(insula_command.main, "completion", shell).out
    for name, target in SCRIPTS.items():
        assert f"    [{name}]={target}\n" in text
    assert not re.search("@[A-Z]+@", text)
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=text, text=True, check=True, timeout=60)


@contextmanager
def zsh(script: Path) -> Iterator[int]:
    """A zsh that a person would type into, with completion switched on; the other end of it."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ["TERM"] = "dumb"
        os.execvp("zsh", ["zsh", "-f", "-i"])
    try:
        setting_up = (
            f"PS1='READ''Y '; autoload -U compinit; compinit -u -D; source {script}; "
            "bindkey '^X' list-choices; unset zle_bracketed_paste\n"
        )
        os.write(terminal, setting_up.encode())
        shown(terminal, "READY ")
        yield terminal
    finally:
        os.close(terminal)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def shown(terminal: int, awaited: str) -> str:
    """What a terminal shows up to a text."""
    text, deadline = "", time.monotonic() + 30
    while awaited not in text:
        assert time.monotonic() < deadline, text
        if select.select([terminal], [], [], 0.1)[0]:
            text += os.read(terminal, 4096).decode(errors="replace").replace("\a", "")
    return text


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_offers_it(run: Run, qubes: FakeDaemon, tmp_path: Path) -> None:
    assert qubes
    script = tmp_path / "completion"
    script.write_text(run(insula_command.main, "completion", "zsh").out)
    (tmp_path / "a-file").touch()
    with zsh(script) as terminal:
        for typed, key, awaited in (
            ("qvm-prefs work netv", "\t", "qvm-prefs work netvm "),
            ("qvm-start ", "\x18", "debian-12"),
            ("qvm-create --label=bl", "\x18", "--label=blue"),
            ("qvm-ls --rever", "\t", "qvm-ls --reverse "),
            ("qvm-ls --re", "\x18", "sort the other way round"),
            ("qvm-volume info wo", "\t", "qvm-volume info work:"),
            ("qvm-volume info work:p", "\t", "qvm-volume info work:private "),
            ("qvm-check 'wo", "\t", "qvm-check 'work' "),
            (f"qvm-notes work --import={tmp_path}/a-", "\t", "/a-file "),
            (f"qvm-notes work -i {tmp_path}/a-", "\t", "/a-file "),
        ):
            os.write(terminal, f"{typed}{key}".encode())
            shown(terminal, awaited)
            os.write(terminal, b"\x15\n")
            shown(terminal, "READY ")
