"""qvm-console and qvm-console-dispvm, with a terminal of the test's as a qube's console."""

import fcntl
import os
import pty
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insula.protocol.admin import AdminRequest
from insula.tools import qvm_console, qvm_console_dispvm
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_agent import SERVICES
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, RefusedError, answer

QVM_CONSOLE = [
    sys.executable,
    "-c",
    "from insula.tools.qvm_console import main; raise SystemExit(main())",
]
TIMEOUT = 30.0  # seconds


@pytest.fixture
def console(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The qube's end of its console."""
    end, terminal = pty.openpty()
    tty.setraw(terminal)
    before: Callable[..., str] = daemon._answer

    def reply(request: AdminRequest, payload: str) -> str:
        if request.method != "admin.vm.Console":
            return before(request, payload)
        if daemon.qubes[request.destination].state != "Running":
            raise RefusedError("QubesVMNotRunningError", "it is not running")
        return os.ttyname(terminal)

    monkeypatch.setattr(daemon, "_answer", reply)
    daemon.add(
        FakeQube("work", state="Running", properties={"management_dispvm": answer("base", "vm")})
    )
    daemon.add(FakeQube("base"))
    yield end
    os.close(end)
    os.close(terminal)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What the terminal window shows: a line, after which somebody types, and closes it."""
    shown = tmp_path / "shown"
    monkeypatch.setitem(
        SERVICES,
        "qubes.ShowInTerminal",
        ["sh", "-c", f"read line; echo $line > {shown}; printf typed; echo oops >&2; exit $CODE"],
    )
    monkeypatch.setenv("CODE", "0")
    return shown


def test_a_console_is_shown_until_it_is_left(console: int) -> None:
    with subprocess.Popen(
        [*QVM_CONSOLE, "work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdin is not None
        assert running.stdout is not None
        assert os.read(console, 1) == qvm_console.SHOW_PROMPT
        os.write(console, b"login: ")
        assert running.stdout.read(7) == "login: "
        running.stdin.write("ls\x1dmore")
        running.stdin.close()
        assert running.wait(TIMEOUT) == 0
        assert os.read(console, 100) == b"ls"
        assert running.stderr is not None
        assert running.stderr.read() == "qvm-console: console of work; leave it with ^]\n"


def test_without_a_name_there_is_no_console() -> None:
    done = subprocess.run(QVM_CONSOLE, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("usage: qvm-console ")


@pytest.mark.parametrize("main", [qvm_console.main, qvm_console_dispvm.main])
@pytest.mark.usefixtures("console")
def test_only_one_is_at_a_console(
    run: Run, instance: Path, main: Callable[[list[str]], int]
) -> None:
    with (instance / "console-work.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(main, "work")
    assert (done.code, done.out) == (200, "")
    assert done.err.endswith("somebody else is at the console of work\n")


def test_a_disposable_shows_a_console(
    run: Run, daemon: FakeDaemon, console: int, window: Path
) -> None:
    os.write(console, b"hello \x1b]0;x\a there\n")
    done = run(qvm_console_dispvm.main, "work")
    assert (done.code, done.out, done.err) == (0, "", "oops\n")
    assert window.read_bytes() == b"hello \x1b]0;x\a there\n"
    expected, received = qvm_console.SHOW_PROMPT + b"typed", b""
    while len(received) < len(expected):
        received += os.read(console, 100)
    assert received == expected
    assert daemon.calls == [
        {"target": "@dispvm:base", "service": "qubes.ShowInTerminal", "gui": True}
    ]


def test_a_window_that_fails_is_told(
    run: Run, console: int, window: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", "127")
    os.write(console, b"\n")
    done = run(qvm_console_dispvm.main, "work")
    assert done.code == 1
    assert "qubes.ShowInTerminal failed (status 127)" in done.err
    assert window.exists()


@pytest.mark.parametrize("words", [[], ["--autostart"]])
def test_a_halted_qube_is_started_where_that_is_asked_for(
    *, run: Run, daemon: FakeDaemon, console: int, window: Path, words: list[str]
) -> None:
    daemon.qubes["work"].state = "Halted"
    os.write(console, b"\n")
    done = run(qvm_console_dispvm.main, *words, "work")
    assert (done.code, window.exists()) == ((0, True) if words else (1, False))
    assert bool(daemon.asked("admin.vm.Start")) == bool(words)
    assert ("work is not running\nStart it first with: --autostart\n" in done.err) != bool(words)


def test_nothing_is_shown_without_a_disposable(
    run: Run, daemon: FakeDaemon, console: int, window: Path
) -> None:
    assert console
    daemon.qubes["work"].properties["management_dispvm"] = NONE
    done = run(qvm_console_dispvm.main, "--autostart", "work")
    assert (done.code, daemon.calls, window.exists()) == (1, [], False)
    assert "qubes-prefs management_dispvm NAME" in done.err
    assert run(qvm_console_dispvm.main, "none").code == 2
