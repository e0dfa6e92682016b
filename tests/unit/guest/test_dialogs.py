"""What qubes ask and tell their person in windows; a script is in the place of what shows them."""

import os
import subprocess
from pathlib import Path

import pytest

import insula.guest
from insula.guest import dialogs, open_in_vm
from insula.guest.commands import opening

TIMEOUT = 30.0  # seconds
FILES = Path(insula.guest.__path__[0], "files")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that comes first in PATH; what yad is asked is in the file `asked`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _program(tmp_path / "yad", f'echo "$@" >> {tmp_path}/asked; exit $(cat {tmp_path}/answer)')
    (tmp_path / "answer").write_text("0")
    return tmp_path


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_only_a_yes_is_a_yes(programs: Path) -> None:
    assert dialogs.confirmed("May <it> & that?", "Yes")
    assert "--no-markup" in (programs / "asked").read_text()
    for answer in ("1", "252"):
        (programs / "answer").write_text(answer)
        assert not dialogs.confirmed("May it?", "Yes")
    (programs / "yad").unlink()
    assert not dialogs.confirmed("May it?", "Yes")


@pytest.fixture
def opened(programs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to open, and a client that says to whom it is sent."""
    _program(programs / "client", f'cat > /dev/null; echo "$@" > {programs}/called')
    monkeypatch.setenv("QREXEC_CLIENT_VM", str(programs / "client"))
    (programs / "file").write_text("content")
    return programs / "file"


def test_what_was_opened_for_another_qube_asks_before_it_opens_more(
    opened: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = programs / "called"
    assert opening.in_dvm([str(opened)]) == 0
    assert not (programs / "asked").exists()
    called.unlink()
    for service in ("qubes.OpenInVM", "qubes.OpenURL+x"):
        monkeypatch.setenv("QREXEC_SERVICE_FULL_NAME", service)
        (programs / "answer").write_text("1")
        assert opening.in_dvm([str(opened)]) == 1
        assert not called.exists()
        (programs / "answer").write_text("0")
        assert opening.in_dvm([str(opened)]) == 0
        called.unlink()
    (programs / "answer").write_text("1")
    assert opening.in_vm(["work", str(opened)]) == 0


def test_a_file_that_nothing_opens_is_told_of_in_a_window(programs: Path) -> None:
    open_in_vm._fail("nothing here opens x")
    assert "could not be opened: nothing here opens x" in (programs / "asked").read_text()


def _act(programs: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    script = FILES / "bin" / "qvm-actions.sh"
    return subprocess.run(
        ["/bin/sh", str(script), *words],
        env={**os.environ, "TMPDIR": str(programs)},
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip


def test_a_file_manager_copies_with_a_window_that_tells_how_much(programs: Path) -> None:
    _program(programs / "yad", f"cat > {programs}/shown")
    _program(programs / "qvm-copy", f'echo "$PROGRESS_TYPE $@" > {programs}/called; echo 9000000')
    assert _act(programs, "copy", "a b", "-c").returncode == 0
    assert (programs / "called").read_text() == "gui -- a b -c\n"
    assert (programs / "shown").read_text() == "# 8 MiB have gone\n"


def test_a_copy_is_ended_by_its_window(programs: Path) -> None:
    _program(programs / "yad", "read -r line; exit 1")
    endless = f"while echo 1 2>/dev/null; do sleep 0.01; done; touch {programs}/ended; exit 32"
    _program(programs / "qvm-move", f"trap '' PIPE; {endless}")
    assert _act(programs, "move", "a").returncode == 0
    assert (programs / "ended").exists()


@pytest.mark.parametrize("action", ["copy", "openvm", "pdf"])
def test_a_file_manager_tells_what_went_wrong(programs: Path, action: str) -> None:
    shown = (
        f'case "$*" in *--progress*) cat > /dev/null ;; *) echo "$@" >> {programs}/asked ;; esac'
    )
    _program(programs / "yad", shown)
    for name in ("qvm-copy", "qvm-open-in-vm", "qvm-convert-pdf"):
        _program(programs / name, "echo it is refused >&2; exit 126")
    assert _act(programs, action, "a", "b").returncode == 1
    assert (programs / "asked").read_text().count("it is refused") == 1
    assert not list(programs.glob("tmp.*"))


def test_a_file_manager_opens_each_of_the_files(programs: Path) -> None:
    _program(programs / "qvm-open-in-dvm", f'echo "$@" >> {programs}/called')
    assert _act(programs, "viewdvm", "a", "b c").returncode == 0
    assert _act(programs, "opendvm", "d").returncode == 0
    assert (programs / "called").read_text() == "--view-only -- a\n--view-only -- b c\n-- d\n"
    assert _act(programs, "other", "d").returncode == 1


def test_empty_entries_of_other_qubes_go_at_the_end(tmp_path: Path) -> None:
    homes, switches = tmp_path / "home", tmp_path / "switches"
    incoming = homes / "user" / "QubesIncoming"
    for folder in (incoming / "gone", incoming / "work" / "empty", homes / "other", switches):
        folder.mkdir(parents=True)
    (incoming / "nothing").touch()
    (incoming / "something").write_text("x")
    (tmp_path / "elsewhere" / "empty").mkdir(parents=True)
    (homes / "other" / "QubesIncoming").symlink_to(tmp_path / "elsewhere")

    def end() -> list[str]:
        script = FILES / "lib" / "qubes-incoming-cleanup"
        words = ["/bin/sh", str(script), str(homes), str(switches)]
        subprocess.run(words, timeout=TIMEOUT, check=True)
        return sorted(entry.name for entry in incoming.iterdir())

    (switches / "no-qubesincoming-cleanup").touch()
    assert end() == ["gone", "nothing", "something", "work"]
    (switches / "no-qubesincoming-cleanup").unlink()
    assert end() == ["something", "work"]
    assert (incoming / "work" / "empty").exists()
    assert (tmp_path / "elsewhere" / "empty").exists()


def test_a_path_that_is_chosen_is_the_answer(programs: Path) -> None:
    for service, option in (("qubes.SelectFile", ""), ("qubes.SelectDirectory", "--directory")):
        _program(programs / "yad", f'echo "$@" > {programs}/asked; echo "/home/user/a b"; exit 0')
        done = subprocess.run(
            ["/bin/sh", str(FILES / "qubes-rpc" / service)],
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "/home/user/a b\n")
        assert option in (programs / "asked").read_text()
        assert (FILES / "rpc-config" / service).read_text() == "wait-for-session = true\n"
