"""qvm-run: what it asks for, what goes through, and how it ends. Commands really run."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from insula.tools import qvm_run
from insula.tools.command import UsageError
from insula.tools.run_options import RunParser
from insula.tools.run_service import RunService, program_service, shell_service
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, RefusedError, answer

QVM_RUN = [sys.executable, "-c", "from insula.tools.qvm_run import main; raise SystemExit(main())"]


@pytest.fixture(autouse=True)
def _qubes(daemon: FakeDaemon) -> None:
    properties = {"default_user": answer("user"), "guivm": NONE}
    for name in ("work", "base"):
        daemon.add(FakeQube(name, state="Running", properties=dict(properties)))
        daemon.qubes[name].features["vmexec"] = "1"
    daemon.system["default_dispvm"] = answer("base", "vm")


@contextmanager
def process(*words: str, **given: object) -> Iterator["subprocess.Popen[bytes]"]:
    """qvm-run as a process of its own, killed when it does not end."""
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*QVM_RUN, *words], **(streams | given)) as running:
        timer = threading.Timer(60, running.kill)
        timer.start()
        try:
            yield running
        finally:
            timer.cancel()


@pytest.mark.parametrize(
    ("words", "qube", "command"),
    [
        (["work", "ls"], "work", ["ls"]),
        (["-p", "work", "ls", "-la", "--help"], "work", ["ls", "-la", "--help"]),
        (["work", "-p", "ls", "-p"], "work", ["ls", "-p"]),
        (["-p", "--", "work", "-x"], "work", ["-x"]),
        (["work", "--", "-x"], "work", ["-x"]),
        (["work", "-p", "--", "ls", "--", "x"], "work", ["ls", "--", "x"]),
        (["--dispvm", "--", "echo", "hello"], None, ["echo", "hello"]),
        (["-p", "--dispvm=base", "echo", "-n"], None, ["echo", "-n"]),
        (["--all", "ls", "--all"], None, ["ls", "--all"]),
        (["--user", "root", "work", "id"], "work", ["id"]),
    ],
)
def test_what_follows_the_command_is_its_own(
    words: list[str], qube: str | None, command: list[str]
) -> None:
    found = RunParser().parse_args(words)
    assert (found.qube, found.command) == (qube, command)


@pytest.mark.parametrize(
    "words",
    [
        [], ["work"], ["--dispvm"], ["--dispvm", "base"], ["--all"], ["work", "-p"],
        ["--all", "--dispvm=base", "ls"], ["work", "--all", "ls"], ["--all", "-p", "ls"],
        ["--exclude", "work", "--dispvm=base", "ls"], ["--localcmd", "cat", "work", "ls"],
        ["--service", "--no-shell", "work", "x"], ["--service", "work", "x", "y"],
        ["--no-filter-escape-chars", "--color-output", "32", "work", "ls"],
    ],
)  # fmt: skip
def test_what_cannot_be_meant(words: list[str]) -> None:
    with pytest.raises(UsageError):
        RunParser().parse_args(words)


def test_an_unknown_qube_is_a_usage_error(run: Run) -> None:
    done = run(qvm_run.main, "no-such", "ls")
    assert done.code == 2
    assert "no such qube: 'no-such'" in done.err


@pytest.mark.parametrize(
    ("held", "user", "gui", "service"),
    [
        ({}, "DEFAULT", False, RunService("qubes.VMShell", "DEFAULT", b"a b; exit\n")),
        ({}, "x", True, RunService("qubes.VMShell+WaitForSession", "x", b"a b; exit\n")),
        ({"os": "Windows"}, "x", False, RunService("qubes.VMShell", "x", b"a b& exit\n")),
        ({}, "root", False, RunService("qubes.VMShell", "root", b"a b; exit\n")),
        (
            {"supported-rpc.qubes.VMRootShell": "1"}, "root", True,
            RunService("qubes.VMRootShell", "DEFAULT", b"a b; exit\n"),
        ),
    ],
)  # fmt: skip
def test_shell_text_goes_to_a_shell(
    held: dict[str, str], user: str, gui: bool, service: RunService
) -> None:
    assert shell_service("a b", user, held.get, gui_disposable=gui) == service


@pytest.mark.parametrize(
    ("held", "user", "gui", "service"),
    [
        ({"vmexec": "1"}, "x", False, RunService("qubes.VMExec+a-20b+--c", "x")),
        ({"vmexec": "1"}, "x", True, RunService("qubes.VMExecGUI+a-20b+--c", "x")),
        ({"vmexec": "1"}, "root", False, RunService("qubes.VMExec+a-20b+--c", "root")),
        (
            {"vmexec": "1", "supported-rpc.qubes.VMRootExec": "1"}, "root", False,
            RunService("qubes.VMRootExec+a-20b+--c"),
        ),
        ({"vmexec": ""}, "x", False, RunService("qubes.VMShell", "x", b"'a b' -c; exit\n")),
        ({}, "x", False, RunService("qubes.VMShell", "x", b"'a b' -c; exit\n")),
    ],
)  # fmt: skip
def test_a_program_keeps_its_words_apart(
    held: dict[str, str], user: str, gui: bool, service: RunService
) -> None:
    assert program_service(["a b", "-c"], user, held.get, gui_disposable=gui) == service


def test_words_that_no_service_name_holds_go_to_a_shell() -> None:
    held = {"vmexec": "1"}
    assert program_service(["x" * 65_000], "u", held.get, gui_disposable=False).first


def test_output_errors_and_exit_code_come_through(run: Run, daemon: FakeDaemon) -> None:
    done = run(qvm_run.main, "-p", "work", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    assert daemon.calls == [
        {
            "target": "work", "service": "qubes.VMShell", "user": "DEFAULT", "autostart": True,
            "gui": False, "detached": False,
        }
    ]  # fmt: skip
    assert daemon.calls_end()


def test_a_program_runs_without_a_shell(run: Run, daemon: FakeDaemon) -> None:
    done = run(qvm_run.main, "-p", "-u", "me", "work", "printf", "%s|", "a b", "$HOME", "-é")
    assert (done.code, done.out) == (0, "a b|$HOME|-é|")
    assert daemon.calls[0]["service"] == "qubes.VMExec+printf+-25s-7C+a-20b+-24HOME+---C3-A9"
    assert daemon.calls[0]["user"] == "me"


def test_input_goes_through() -> None:
    content = os.urandom(1_000_000)
    with process("-p", "work", "cat") as running:
        out, err = running.communicate(content)
    assert (running.returncode, out == content, err) == (0, True, b"")


def test_input_that_stays_open_does_not_keep_it() -> None:
    with process("-p", "work", "exit 3") as running:
        assert running.wait() == 3


def test_closed_streams_are_no_trouble() -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        shell = ["/bin/sh", "-c", f'"$@" {closed}', "sh", *QVM_RUN]
        done = subprocess.run(
            [*shell, "-p", "work", "cat; exit 4"], input=b"", capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert (closed, done.returncode, done.stderr) == (closed, 4, b"")


def test_a_reader_that_leaves_ends_an_endless_command() -> None:
    with process("-p", "work", "yes") as running:
        assert running.stdout is not None
        assert running.stdout.read(4) == b"y\ny\n"
        running.stdout.close()
        assert running.wait() == 141


def test_an_interrupt_ends_it() -> None:
    with process("-p", "work", "echo ready; exec cat") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130
        assert running.stderr is not None
        assert running.stderr.read() == b""


def test_without_p_nothing_goes_through_and_it_says_what_runs(run: Run) -> None:
    done = run(qvm_run.main, "work", "echo out; cat; exit 5")
    assert (done.code, done.out) == (5, "")
    assert done.err == "qvm-run: running 'echo out; cat; exit 5' in work\n"
    assert run(qvm_run.main, "-q", "work", "true").err == ""


def test_a_service_is_called_by_its_name(run: Run, daemon: FakeDaemon) -> None:
    done = run(qvm_run.main, "-p", "--service", "work", "test.None+x")
    assert done.code == 127
    assert daemon.calls[0]["service"] == "test.None+x"
    assert not daemon.calls[0]["detached"]


def test_a_service_without_streams_is_not_waited_for(run: Run, daemon: FakeDaemon) -> None:
    assert run(qvm_run.main, "--service", "work", "test.Cat").code == 0
    assert daemon.calls[0]["detached"]


def test_a_connection_that_is_lost(run: Run) -> None:
    done = run(qvm_run.main, "-p", "--service", "work", "test.Lost")
    assert done.code == 255
    assert done.err == "qvm-run: error: work: the connection ended before the command did\n"


def test_a_refused_call(run: Run, daemon: FakeDaemon) -> None:
    daemon.refusals["call", "work"] = RefusedError("QubesVMError", "it cannot start")
    done = run(qvm_run.main, "-p", "work", "ls")
    assert (done.code, done.err) == (255, "qvm-run: error: it cannot start\n")


def test_a_disposable_by_default(run: Run, daemon: FakeDaemon) -> None:
    done = run(qvm_run.main, "-p", "--dispvm", "--", "echo", "hello")
    assert (done.code, done.out) == (0, "hello\n")
    assert daemon.calls[0]["target"] == "@dispvm"
    assert daemon.calls[0]["service"] == "qubes.VMExec+echo+hello"
    assert [request.method for request, _ in daemon.requests] == [
        "admin.property.Get",
        "admin.vm.feature.CheckWithTemplate",
    ]


def test_a_disposable_of_a_template(run: Run, daemon: FakeDaemon) -> None:
    assert run(qvm_run.main, "-p", "--dispvm=base", "true").code == 0
    assert daemon.calls[0]["target"] == "@dispvm:base"
    done = run(qvm_run.main, "-p", "--dispvm=none", "true")
    assert (done.code, len(daemon.calls)) == (2, 1)


def test_without_a_default_template_there_is_no_disposable(run: Run, daemon: FakeDaemon) -> None:
    daemon.system["default_dispvm"] = NONE
    done = run(qvm_run.main, "-p", "--dispvm", "--", "true")
    assert done.code == 255
    assert "qubes-prefs default_dispvm" in done.err


def test_a_paused_qube_is_woken(run: Run, daemon: FakeDaemon) -> None:
    daemon.qubes["work"].state = "Paused"
    assert run(qvm_run.main, "-p", "work", "true").code == 0
    assert daemon.qubes["work"].state == "Running"
    daemon.qubes["work"].state = "Paused"
    daemon.refusals["admin.vm.Unpause", "work"] = RefusedError("QubesException", "no")
    done = run(qvm_run.main, "-p", "work", "true")
    assert (done.code, done.err) == (1, "work: it could not be woken: no\n")


@pytest.mark.parametrize("state", ["Halted", "Paused"])
def test_without_autostart_a_qube_is_passed_over(run: Run, daemon: FakeDaemon, state: str) -> None:
    daemon.qubes["work"].state = state
    done = run(qvm_run.main, "-n", "-p", "work", "true")
    assert (done.code, daemon.calls) == (1, [])
    daemon.qubes["work"].state = "Running"
    assert run(qvm_run.main, "-n", "-p", "work", "true").code == 0
    assert daemon.calls[0]["autostart"] is False


def test_all_running_qubes_and_the_highest_code(run: Run, daemon: FakeDaemon) -> None:
    daemon.add(FakeQube("paused", state="Paused"))
    daemon.add(FakeQube("hidden", state="Running", features={"internal": "1"}))
    daemon.add(FakeQube("left-out", state="Running"))
    daemon.refusals["call", "base"] = RefusedError("QubesException", "no")
    done = run(qvm_run.main, "-q", "--all", "--exclude", "left*", "exit 3")
    assert (done.code, [call["target"] for call in daemon.calls]) == (255, ["work", "base"])
    del daemon.refusals["call", "base"]
    assert run(qvm_run.main, "-q", "--all", "exit 3").code == 3


def test_a_local_command_is_connected(run: Run, tmp_path: Path) -> None:
    script = f"echo question; cat > {tmp_path}/answer"
    done = run(qvm_run.main, "-p", "--localcmd", script, "work", "read x; echo got $x")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "answer").read_text() == "got question\n"


@pytest.mark.parametrize(
    ("remote", "local", "code"),
    [("0", "exit 6", 6), ("5", "exit 6", 5), ("0", "exit 0", 0), ("0", "kill -PIPE $$", 0)],
)
def test_the_codes_of_both_ends_are_combined(run: Run, remote: str, local: str, code: int) -> None:
    words = ["-p", "--localcmd", local, "work", f"exit {remote}"]
    assert run(qvm_run.main, *words).code == code


def test_the_session_is_waited_for_where_windows_are_shown(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    daemon.qubes["work"].properties["guivm"] = answer("dom0", "vm")
    assert run(qvm_run.main, "-p", "work", "true").code == 0
    assert [call["service"] for call in daemon.calls] == ["qubes.WaitForSession", "qubes.VMShell"]
    assert [call["gui"] for call in daemon.calls] == [False, True]
    daemon.calls.clear()
    assert run(qvm_run.main, "--no-gui", "-p", "work", "true").code == 0
    daemon.qubes["work"].features["gui"] = ""
    assert run(qvm_run.main, "-p", "work", "true").code == 0
    assert [call["gui"] for call in daemon.calls] == [False, False]
    assert run(qvm_run.main, "--gui", "-p", "--dispvm=base", "true").code == 0
    assert daemon.calls[-1]["service"] == "qubes.VMShell+WaitForSession"


def test_escape_sequences_are_filtered_on_request(run: Run) -> None:
    words = ["-p", "--filter-escape-chars", "work", r"printf '\033[2Jx'; printf '\033y' >&2"]
    done = run(qvm_run.main, *words)
    assert (done.out, done.err) == ("\x1b[0;31m_[2Jx\x1b[0m", "_y")
    done = run(qvm_run.main, "--no-color-output", *words)
    assert done.out == "_[2Jx"
    done = run(qvm_run.main, "--colour-output=32", "--colour-stderr=33", *words)
    assert done.out == "\x1b[0;32m_[2Jx\x1b[0m"
    assert done.err == "\x1b[0;33m_y\x1b[0m"
    assert run(qvm_run.main, "-p", "work", r"printf '\033x'").out == "\x1bx"


def test_a_terminal_is_protected_unless_told_otherwise() -> None:
    for words, expected in (
        ([], b"\x1b[0;31m\x1b[0;31m_x\x1b[0m\x1b[0m"),
        (["--no-filter-escape-chars"], b"\x1bx"),
    ):
        controller, terminal = pty.openpty()
        command = [*words, "-p", "work", r"printf '\033x'"]
        with process(*command, stdout=terminal, stderr=terminal) as running:
            os.close(terminal)
            shown = b""
            try:
                while chunk := os.read(controller, 100):
                    shown += chunk
            except OSError:
                pass  # That is how a terminal's end of file comes.
            assert (running.wait(), shown) == (0, expected)
        os.close(controller)


def test_codes_that_no_process_has_are_a_failure(run: Run, daemon: FakeDaemon) -> None:
    assert run(qvm_run.main, "-p", "work", "kill -9 $$").code == 137
    assert json.dumps(daemon.calls)  # what was asked for can be sent
