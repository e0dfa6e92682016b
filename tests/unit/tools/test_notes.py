"""qvm-notes: what is kept, what is asked, and how an editor takes part."""

import io
import sys
from pathlib import Path

import pytest

from insula.tools import qvm_notes
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError


@pytest.fixture(autouse=True)
def qube(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeQube:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("VISUAL", raising=False)
    return daemon.add(FakeQube("work", notes="first\n"))


def test_they_are_printed_with_one_newline_more(run: Run) -> None:
    done = run(qvm_notes.main, "work", "--print")
    assert (done.code, done.out) == (0, "first\n\n")


@pytest.mark.parametrize(
    ("before", "words", "after"),
    [
        ("a", ["--append", "b"], "a\nb"),
        ("a\n", ["--append", "b\n"], "a\nb\n"),
        ("", ["--append", "b"], "b"),
        ("a", ["-s", "ä"], "ä"),
        ("a", ["--set", ""], ""),
        ("a", ["-d", "-f"], ""),
    ],
)
def test_they_are_changed(
    run: Run, qube: FakeQube, before: str, words: list[str], after: str
) -> None:
    qube.notes = before
    done = run(qvm_notes.main, "work", *words)
    assert (done.code, done.out, done.err, qube.notes) == (0, "", "", after)


@pytest.mark.parametrize(
    ("said", "code", "after"),
    [("y\n", 0, ""), ("Y\n", 0, ""), ("\n", 2, "first\n"), ("", 2, "first\n")],
)
def test_deleting_is_asked_for(
    *, run: Run, qube: FakeQube, monkeypatch: pytest.MonkeyPatch, said: str, code: int, after: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    done = run(qvm_notes.main, "--delete", "work")
    assert (done.code, qube.notes) == (code, after)
    assert "[y/N]" in done.out


def test_they_are_taken_from_a_file(run: Run, qube: FakeQube, tmp_path: Path) -> None:
    (tmp_path / "n").write_text("from a file")
    assert run(qvm_notes.main, "work", "-i", str(tmp_path / "n")).code == 0
    assert qube.notes == "from a file"
    (tmp_path / "n").write_bytes(b"\xff")
    for name in ("n", "none"):
        done = run(qvm_notes.main, "work", "--import", str(tmp_path / name))
        assert (done.code, qube.notes) == (1, "from a file")
        assert done.err.startswith("qvm-notes: ")


def editor(tmp_path: Path, script: str) -> str:
    path = tmp_path / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return f"{path} --wait"


@pytest.mark.parametrize(
    ("script", "code", "after"),
    [
        ("echo more >> $2", 0, "first\nmore\n"),
        ("echo new > $2.new; mv $2.new $2", 0, "new\n"),
        ("case $2 in */work_qube_*_notes.txt) echo named > $2;; esac", 0, "named\n"),
        ("true", 0, "first\n"),
        ("echo more >> $2; exit 3", 1, "first\n"),
        ("rm $2", 1, "first\n"),
    ],
)
def test_they_are_edited(
    *, run: Run, qube: FakeQube, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    script: str, code: int, after: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("EDITOR", editor(tmp_path, script))
    assert (run(qvm_notes.main, "work").code, qube.notes) == (code, after)
    assert [path.name for path in tmp_path.iterdir()] == ["editor"]


def test_visual_comes_before_editor(
    run: Run, qube: FakeQube, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDITOR", "false")
    monkeypatch.setenv("VISUAL", editor(tmp_path, "echo v > $2"))
    assert (run(qvm_notes.main, "--edit", "work").code, qube.notes) == (0, "v\n")
    monkeypatch.setenv("VISUAL", str(tmp_path / "none"))
    assert run(qvm_notes.main, "work").code == 1


def test_a_refusal_and_too_much_are_failures(run: Run, daemon: FakeDaemon) -> None:
    done = run(qvm_notes.main, "work", "--set", "x" * 256_001)
    assert (done.code, "256000" in done.err) == (1, True)
    daemon.refusals["admin.vm.notes.Set", "work"] = RefusedError("QubesException", "no")
    done = run(qvm_notes.main, "work", "--set", "x")
    assert (done.code, done.err) == (1, "qvm-notes: no\n")
    assert run(qvm_notes.main, "none", "-p").code == 2
    assert run(qvm_notes.main, "work", "-p", "-d").code == 2
