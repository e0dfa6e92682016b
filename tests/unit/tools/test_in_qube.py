"""Commands in a qube: the same, by calls that the policy decides on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from insula.client import instance
from insula.tools import qvm_console, qvm_ls, qvm_power, qvm_prefs, qvm_run, qvm_template
from tests.unit.client.in_qube import InQube, go_into_qube
from tests.unit.tools.conftest import Done, Run
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, answer


@pytest.fixture
def qube(
    instance: Path, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InQube:
    properties = {"default_user": answer("user"), "guivm": NONE, "label": answer("red", "label")}
    daemon.add(FakeQube("work", state="Running", properties=properties))
    daemon.add(FakeQube("base", state="Running", properties=dict(properties)))
    daemon.system["default_dispvm"] = answer("base", "vm")
    monkeypatch.setenv("SERVICE", "cat")
    return go_into_qube(tmp_path / "qube", instance, monkeypatch)


def test_commands_do_what_they_do_in_dom0(qube: InQube, daemon: FakeDaemon, run: Run) -> None:
    assert run(qvm_ls.main, "--raw-data", "-O", "name,label", "work").out == "work|red\n"
    assert run(qvm_prefs.main, "work", "label", "blue") == Done(0, "", "")
    assert daemon.qubes["work"].properties["label"].value == "blue"
    qube.refuse("admin.vm.property.Get+label", "admin.vm.property.GetAll")
    done = run(qvm_prefs.main, "work", "label")
    assert (done.code, done.out) == (1, "")
    assert "Request refused" in done.err


def test_a_command_goes_through_with_its_streams_and_its_code(qube: InQube, run: Run) -> None:
    done = run(qvm_run.main, "-p", "work", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert qube.called()[-1].startswith(
        "work qubes.VMShell --no-filter-escape-chars-stdout --no-filter-escape-chars-stderr "
        "--prefix-data=echo out;"
    )
    done = run(qvm_run.main, "-p", "--filter-escape-chars", "work", "true")
    assert done.out == "\x1b[0;31m\x1b[0m"
    assert " --filter-escape-chars-stdout --filter-escape-chars-stderr " in qube.called()[-1]


def test_input_follows_the_command(qube: InQube) -> None:
    program = (
        "import sys; from insula.client import instance; from insula.tools import qvm_run; "
        f"instance._AGENT = {instance._AGENT!r}; instance._ADMIN_MARK = '/none'; "
        "sys.exit(qvm_run.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-p", "work", "cat; echo more"],
        input=b"line\n", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"line\nmore\n", b"")
    assert qube.called()


def test_without_p_it_says_what_runs_and_waits_for_it(
    qube: InQube, run: Run, tmp_path: Path
) -> None:
    done = run(qvm_run.main, "work", f"sleep 0.1; echo x; touch {tmp_path}/done")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("qvm-run: running ")
    assert (tmp_path / "done").exists()
    assert run(qvm_run.main, "-q", "--service", "work", "test.Fail") == Done(0, "", "")
    assert qube.called()[-1].startswith("work test.Fail ")


def test_a_refused_call(qube: InQube, run: Run) -> None:
    qube.refuse("qubes.VMShell")
    done = run(qvm_run.main, "-p", "work", "true")
    assert (done.code, done.out) == (255, "")
    assert done.err.splitlines()[-1] == "qvm-run: error: work: the call was refused"


def test_only_dom0_chooses_the_user(qube: InQube, daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_run.main, "-p", "-u", "root", "work", "true")
    assert (done.code, "--user is for dom0 alone" in done.err) == (2, True)
    daemon.qubes["work"].features["supported-rpc.qubes.VMRootShell"] = "1"
    assert run(qvm_run.main, "-q", "-u", "root", "work", "true").code == 0
    assert qube.called()[-1].startswith("work qubes.VMRootShell ")


def test_a_local_command_and_several_qubes(qube: InQube, run: Run, tmp_path: Path) -> None:
    script = f"echo question; cat > {tmp_path}/answer"
    assert run(qvm_run.main, "-p", "--localcmd", script, "work", "read x; echo got $x").code == 0
    assert (tmp_path / "answer").read_text() == "got question\n"
    assert run(qvm_run.main, "-q", "--all", "exit $((RANDOM % 2 + 6))").code in (6, 7)
    assert {call.split()[0] for call in qube.called()} >= {"work", "base"}


def test_a_disposable_of_which_nothing_may_be_known(qube: InQube, run: Run) -> None:
    qube.refuse("admin.vm.feature.CheckWithTemplate+os")
    assert run(qvm_run.main, "-p", "--dispvm", "--", "echo hi").out == "hi\n"
    assert qube.called()[-1].startswith("@dispvm qubes.VMShell ")


def test_the_session_is_waited_for(
    qube: InQube, daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    daemon.qubes["work"].properties["guivm"] = answer("dom0", "vm")
    assert run(qvm_run.main, "-q", "work", "true").code == 0
    services = [call.split()[1] for call in qube.called() if " qubes." in call]
    assert services == ["qubes.WaitForSession", "qubes.VMShell"]


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[str]]:
    """What is written to it is typed."""
    read, write = os.pipe()
    with os.fdopen(read) as keys, os.fdopen(write, "w", buffering=1) as typing:
        monkeypatch.setattr(sys, "stdin", keys)
        yield typing


@pytest.mark.parametrize(
    ("service", "code", "shown"),
    [("printf 'login: '; read -r key; echo $key", 0, "login: \rme\n"), ("exit 200", 200, "")],
)
def test_a_console_is_joined_by_dom0(
    *, qube: InQube, run: Run, monkeypatch: pytest.MonkeyPatch, keyboard: IO[str],
    service: str, code: int, shown: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("SERVICE", service)
    keyboard.write("me\n")
    done = run(qvm_console.main, "work")
    assert (done.code, done.out) == (code, shown)
    assert qube.called()[-1] == "work admin.vm.Console"


@pytest.mark.parametrize("service", ["cat; exit 1", "exec 0<&- 1>&-; exec sleep 60"])
def test_leaving_a_console_ends_the_call(
    qube: InQube, run: Run, monkeypatch: pytest.MonkeyPatch, keyboard: IO[str], service: str
) -> None:
    monkeypatch.setattr(qvm_console, "_GRACE", 0.2)
    monkeypatch.setenv("SERVICE", service)
    keyboard.write("x\x1d\n")
    assert run(qvm_console.main, "work").code == 0
    assert qube.called()


def test_a_console_that_is_refused(qube: InQube, run: Run, keyboard: IO[str]) -> None:
    assert keyboard
    qube.refuse("admin.vm.Console")
    done = run(qvm_console.main, "work")
    assert (done.code, done.err.splitlines()[-1]) == (
        1, "qvm-console: error: admin.vm.Console of work: the call was refused",
    )  # fmt: skip


def test_a_file_is_made_a_drive_in_dom0_alone(qube: InQube, daemon: FakeDaemon, run: Run) -> None:
    assert qube
    daemon.qubes["base"].state = "Halted"
    done = run(qvm_power.start, "--cdrom", "work:/disk.iso", "base")
    assert (done.code, done.err) == (1, "Error: only in dom0 can a file be made a drive\n")
    assert not daemon.asked("admin.vm.Start")


def test_templates_are_looked_after_from_a_qube(qube: InQube, run: Run, tmp_path: Path) -> None:
    assert qube
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/package.rpm").touch()
    assert run(qvm_template.main, "clean", "--cachedir", str(tmp_path / "cache")).code == 0
    assert not list((tmp_path / "cache").iterdir())
    assert (tmp_path / "qube/qvm-template.lock").exists()
