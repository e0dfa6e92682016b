"""Commands of a qube, as far as they need no other qube."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.guest.commands import connect_tcp, run_vm
from insula.guest.services import menus

TIMEOUT = 30.0  # seconds


def test_a_command_line_is_quoted_for_the_shell_over_there() -> None:
    line = run_vm.first_line(["echo", "it's", "$HOME"])
    assert line == b"exec bash -c 'echo it'\\''s $HOME' || exit 127\n"


@given(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=30))
def test_any_word_arrives_as_it_is(word: str) -> None:
    script = run_vm.first_line([word]).replace(b"exec bash -c", b"printf %s", 1)
    done = subprocess.run(["bash"], input=script, capture_output=True, timeout=TIMEOUT, check=False)
    assert done.stdout == word.encode()


@pytest.mark.parametrize(
    ("word", "binding"),
    [
        ("80:work:8080", (80, "work", 8080)),
        (":work:8080", (8080, "work", 8080)),
        ("::8080", (8080, "@default", 8080)),
        ("1:@dispvm:22", (1, "@dispvm", 22)),
        ("8080", None),
        ("0:a:1", None),
        ("1:a:70000", None),
        ("1:a:0", None),
        ("x:a:1", None),
    ],
)
def test_ports_are_read_strictly(word: str, binding: tuple[int, str, int] | None) -> None:
    assert connect_tcp.parse(word) == binding


def test_applications_are_told_by_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "applications" / "sub"
    place.mkdir(parents=True)
    (place / "edit.desktop").write_text("[Desktop Entry]\nName=Edit\nExec=edit --new %F\n")
    (place / "hidden.desktop").write_text("[Desktop Entry]\nName=No\nNoDisplay=true\n")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    assert menus.get_appmenus() == 0
    assert capsys.readouterr().out.splitlines() == [
        "sub-edit.desktop:Name=Edit",
        "sub-edit.desktop:Exec=qubes-desktop-run sub-edit.desktop",
    ]


def test_an_application_is_started_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "applications"
    place.mkdir()
    (place / "touch.desktop").write_text(f"[Desktop Entry]\nExec=touch {tmp_path}/done %U\n")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert menus.start_app(["touch"]) == 0
    assert (tmp_path / "done").exists()
    assert menus.start_app(["nothing"]) == 1


def test_a_file_comes_back_only_where_it_was_changed(tmp_path: Path) -> None:
    client = tmp_path / "client"
    client.write_text("#!/bin/sh\nhead -c 256 > /dev/null\ntr a-z A-Z\n")
    client.chmod(0o755)
    file = tmp_path / "file.txt"
    file.write_text("content")
    file.chmod(0o640)
    script = "from insula.guest.commands.opening import in_dvm; raise SystemExit(in_dvm())"

    def opened(*words: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", script, *words],
            env={**os.environ, "QREXEC_CLIENT_VM": str(client)},
            check=False,
            timeout=TIMEOUT,
        ).returncode

    assert opened("--view-only", str(file)) == 0
    assert file.read_text() == "content"
    assert opened(str(file)) == 0
    assert file.read_text() == "CONTENT"
    assert file.stat().st_mode & 0o777 == 0o640
    client.write_text("#!/bin/sh\ncat > /dev/null\necho broken\nexit 3\n")
    assert opened(str(file)) == 3
    assert file.read_text() == "CONTENT"
    assert opened(str(tmp_path)) == 2
