"""Opening a file in a qube: which program opens it, and what goes back."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from insula.guest import handlers, open_in_vm
from insula.protocol.open_in_vm import encode_name

VIEWER = """[Desktop Entry]
Name=Viewer
# Exec=wrong
Exec=viewer --title "Two words" %f
MimeType=application/pdf;text/x-log;

[Desktop Action New]
Exec=viewer --new
"""


def test_the_first_handler_of_a_type_is_its_default() -> None:
    text = (
        "[Added Associations]\nimage/png=c.desktop\n"
        "[Default Applications]\nimage/png = a.desktop;b.desktop;\n"
    )
    assert handlers.default_handlers(text, "image/png") == ["a.desktop", "b.desktop", "c.desktop"]
    assert handlers.default_handlers(text, "image/gif") == []


def test_an_entrys_words_open_the_path() -> None:
    assert handlers.command_of(VIEWER, "/tmp/x y") == ["viewer", "--title", "Two words", "/tmp/x y"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Exec=edit %U", ["edit", "/f"]),
        ("Exec=edit %i %c 100%%", ["edit", "100%", "/f"]),
        ("Exec=edit", ["edit", "/f"]),
        ("Exec=edit '", None),
        ("Exec=", None),
        ("Name=none", None),
        ("Exec=edit %f\nHidden=true", None),
    ],
)
def test_field_codes_are_replaced(line: str, words: list[str] | None) -> None:
    assert handlers.command_of(f"[Desktop Entry]\n{line}\n", "/f") == words


def test_a_type_has_its_handler_from_the_lists_then_from_the_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applications = tmp_path / "data" / "applications"
    applications.mkdir(parents=True)
    (applications / "viewer.desktop").write_text(VIEWER)
    (applications / "other.desktop").write_text("[Desktop Entry]\nExec=other %f\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mimeapps.list").write_text(
        "[Default Applications]\ntext/plain=gone.desktop;other.desktop\n"
    )
    for name, folder in (("DATA_HOME", "none"), ("DATA_DIRS", "data"), ("CONFIG_HOME", "config")):
        monkeypatch.setenv(f"XDG_{name}", str(tmp_path / folder))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    assert handlers.find_command("text/plain", "/f") == ["other", "/f"]
    assert handlers.find_command("text/x-python", "/f") == ["other", "/f"]
    assert handlers.find_command("text/x-log", "/f") == ["viewer", "--title", "Two words", "/f"]
    assert handlers.find_command("image/png", "/f") is None


def test_a_type_is_found_by_name_and_else_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"")
    (tmp_path / "b").write_bytes(b"plain text\n")
    assert open_in_vm.mime_type(tmp_path / "a.pdf") == "application/pdf"
    assert open_in_vm.mime_type(tmp_path / "b") == "text/plain"


class Streams:
    """Standard input and output of a call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
        self.output = io.BytesIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent)))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(self.output))


Serve = Callable[..., tuple[int, bytes]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve a call with a shell script in the place of the program that opens files."""
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("QREXEC_REMOTE_DOMAIN", "work")

    def call(script: str, name: bytes = b"note", content: bytes = b"old") -> tuple[int, bytes]:
        command: Callable[[str, str], list[str]] = lambda _type, path: [  # noqa: E731
            "/bin/sh", "-c", script, path,
        ]  # fmt: skip
        monkeypatch.setattr(open_in_vm, "find_command", command)
        streams = Streams(monkeypatch, encode_name(name) + content)
        return open_in_vm.main(), streams.output.getvalue()

    return call


def test_a_file_that_is_only_looked_at_is_not_sent_back(serve: Serve) -> None:
    assert serve('[ "$(cat "$0")" = old ]') == (0, b"")


def test_an_edited_file_is_sent_back(serve: Serve) -> None:
    assert serve('printf new > "$0"') == (0, b"new")


def test_a_file_that_an_editor_replaced_is_sent_back(serve: Serve) -> None:
    assert serve('printf new > "$0~"; mv "$0~" "$0"') == (0, b"new")


def test_a_file_to_be_viewed_only_stays_here(serve: Serve) -> None:
    script = '[ "$(stat -c %a "$0")" = 400 ]; rm "$0"; printf new > "$0"'
    assert serve(script, b"view-only-note") == (0, b"")


def test_a_program_that_fails_is_told_of(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve("printf new > $0; exit 3") == (1, b"")
    assert "status 3" in capsys.readouterr().err


def test_nothing_is_left_behind(serve: Serve, tmp_path: Path) -> None:
    assert serve(f'printf %s "$0" > {tmp_path}/name') == (0, b"")
    path = Path((tmp_path / "name").read_text())
    assert path.name == "note"
    assert path.parent.name.startswith("work-")
    assert not path.parent.exists()


def test_a_process_that_has_the_path_among_its_words_is_waited_for(serve: Serve) -> None:
    script = 'setsid -f /bin/sh -c "sleep 0.4; printf late > \\$0" "$0"'
    started = time.monotonic()
    assert serve(script) == (0, b"late")
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize("source", ["", ".", "..", "a/b"])
def test_a_source_that_is_no_qubes_name_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("QREXEC_REMOTE_DOMAIN", source)
    assert serve("true") == (1, b"")


@pytest.mark.usefixtures("serve")
def test_a_type_that_nothing_opens_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(_type: str, _path: str) -> None:
        return None

    Streams(monkeypatch, encode_name(b"x.pdf"))
    monkeypatch.setattr(open_in_vm, "find_command", none)
    assert open_in_vm.main() == 1
    assert "application/pdf" in capsys.readouterr().err


def test_the_service_runs_as_a_program_of_the_agent_volume() -> None:
    root = Path(open_in_vm.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-SP", "-m", "insula.guest.open_in_vm"],
        env=os.environ | {"PYTHONPATH": str(root), "QREXEC_REMOTE_DOMAIN": "work"},
        input=encode_name(b"../x"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"not a file's name" in done.stderr
