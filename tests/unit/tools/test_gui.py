"""qvm-start-daemon and qubes-guivm-session: the session they stand for, and their exit codes."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from insula.desktop import lock
from insula.tools import guivm_session, qvm_start_daemon
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube


class BecameError(Exception):
    """Instead of becoming another program."""


@pytest.fixture(autouse=True)
def _display(instance: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert instance

    def become(program: str, words: list[str]) -> None:
        raise BecameError(program, words)

    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":7")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Displays on which windows were asked to be shown."""
    found: list[str] = []
    monkeypatch.setattr("insula.tools.up.show_windows", found.append)
    return found


def test_windows_are_shown_in_the_background(
    daemon: FakeDaemon, run: Run, shown: list[str]
) -> None:
    daemon.add(FakeQube("work"))
    for words in (["--all"], ["work"], ["--kde", "--force", "-d", "work"]):
        assert run(qvm_start_daemon.gui, *words).code == 0
    assert shown == [":7"] * 3


@pytest.mark.parametrize(
    ("words", "code"), [([], 2), (["none"], 2), (["--watch", "--notify-monitor-layout"], 2)]
)
def test_what_cannot_be_meant(
    *, daemon: FakeDaemon, run: Run, shown: list[str], words: list[str], code: int
) -> None:
    assert daemon
    assert (run(qvm_start_daemon.main, *words).code, shown) == (code, [])


def test_without_a_display_there_are_no_windows(
    run: Run, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY")
    done = run(qvm_start_daemon.main, "--all")
    assert (done.code, shown) == (1, [])
    assert "DISPLAY" in done.err


@pytest.mark.parametrize("given", [False, True])
def test_watching_becomes_the_session_and_holds_its_pid_file(
    run: Run, tmp_path: Path, given: bool
) -> None:
    path = tmp_path / ("own.pid" if given else "qvm-start-daemon.pid")
    words = ["--pidfile", str(path)] if given else []
    with pytest.raises(BecameError) as became:
        run(qvm_start_daemon.main, "--watch", "--all", *words)
    assert became.value.args == (sys.executable, [sys.executable, "-m", "insula.desktop.session"])
    assert path.read_text() == f"{os.getpid()}\n"
    (held,) = (
        int(entry.name)
        for entry in Path("/proc/self/fd").iterdir()
        if os.path.lexists(entry) and os.readlink(entry) == str(path)  # noqa: PTH115
    )
    assert os.get_inheritable(held)
    done = run(qvm_start_daemon.main, "--watch", "--all", *words)
    assert (done.code, done.err) == (
        1, f"qvm-start-daemon: error: another process holds {path}\n",
    )  # fmt: skip
    os.close(held)


def test_a_session_that_is_there_knows_the_layout(run: Run, instance: Path) -> None:
    assert run(qvm_start_daemon.main, "--notify-monitor-layout").code == 1
    held = lock.take(instance, ":7")
    assert run(qvm_start_daemon.main, "--notify-monitor-layout").code == 0
    lock.release(held)
    assert run(qvm_start_daemon.main, "--notify-monitor-layout").code == 1


def test_in_a_qube_nothing_is_done_without_its_service(
    *, run: Run, shown: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(qvm_start_daemon, "_IN_QUBE", str(tmp_path))
    assert (run(qvm_start_daemon.main, "--all").code, shown) == (0, [])
    assert (run(qvm_start_daemon.main, "--all", "--force").code, shown) == (0, [":7"])
    monkeypatch.setattr(qvm_start_daemon, "_SERVICES", (str(tmp_path),))
    assert (run(qvm_start_daemon.main, "--all").code, shown) == (0, [":7", ":7"])


def test_a_session_is_a_qube_started_its_windows_and_its_service(
    *, daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$$ $@" >> {tmp_path}/asked\n'
        "case $2 in *start_daemon) exec sleep 60;; esac\nexit 9\n"
    )
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    daemon.add(FakeQube("desk"))
    assert run(guivm_session.main, "desk").code == 9
    assert daemon.qubes["desk"].state == "Running"
    asked = sorted(line.split(" ", 2)[2] for line in (tmp_path / "asked").read_text().splitlines())
    assert asked[0] == "insula.tools.qvm_run -p --no-gui --service desk qubes.GuiVMSession"
    assert asked[1:] in ([], ["insula.tools.qvm_start_daemon --watch desk"])


def test_a_session_needs_a_qube(daemon: FakeDaemon, run: Run) -> None:
    assert daemon
    assert run(guivm_session.main).code == 1
    assert run(guivm_session.main, "none").code == 2


def test_a_lock_is_what_desktop_makes_of_it(instance: Path) -> None:
    held = lock.take(instance, ":7")
    with pytest.raises(BlockingIOError), (instance / "session.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    lock.release(held)
