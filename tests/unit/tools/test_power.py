"""qvm-start, -kill, -pause, -unpause and -shutdown: what they ask for, and how they end."""

import os
from pathlib import Path

import pytest

from insula.tools import drives, qvm_power, qvm_shutdown
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError


@pytest.fixture(autouse=True)
def _qubes(daemon: FakeDaemon) -> None:
    daemon.add(FakeQube("halted"))
    daemon.add(FakeQube("running", state="Running"))
    daemon.add(FakeQube("paused", state="Paused"))
    daemon.add(FakeQube("asleep", state="Suspended"))


def states(daemon: FakeDaemon) -> str:
    return " ".join(qube.state for qube in daemon.qubes.values() if qube.name != "dom0")


def test_start(daemon: FakeDaemon, run: Run) -> None:
    assert run(qvm_power.start, "halted").code == 0
    assert daemon.qubes["halted"].state == "Running"


def test_starting_what_runs_is_an_error_at_once(daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_power.start, "running", "halted")
    assert (done.code, done.err) == (1, "Error: running is running already\n")
    assert not daemon.asked("admin.vm.Start")


def test_what_runs_can_be_passed_over(daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_power.start, "--skip-if-running", "running", "paused", "halted")
    assert (done.code, done.err) == (0, "")
    assert [name for name, _, _ in daemon.asked("admin.vm.Start")] == ["halted"]


def test_one_that_does_not_start_does_not_keep_others_from_it(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("other"))
    daemon.refusals["admin.vm.Start", "halted"] = RefusedError("QubesMemoryError", "no memory")
    done = run(qvm_power.start, "halted", "other")
    assert (done.code, done.err) == (1, "Error: no memory\n")
    assert daemon.qubes["other"].state == "Running"


def test_kill_does_not_mind_halted_ones(daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_power.kill, "--all")
    assert (done.code, done.err) == (0, "")
    assert states(daemon) == "Halted Halted Halted Halted"


def test_kill_tells_what_it_could_not(daemon: FakeDaemon, run: Run) -> None:
    daemon.refusals["admin.vm.Kill", "running"] = RefusedError("QubesVMError", "it hangs on")
    done = run(qvm_power.kill, "running", "paused")
    assert (done.code, done.err) == (1, "Error: it hangs on\n")
    assert daemon.qubes["paused"].state == "Halted"


def test_pause_and_suspend(daemon: FakeDaemon, run: Run) -> None:
    assert run(qvm_power.pause, "running").code == 0
    assert daemon.qubes["running"].state == "Paused"
    daemon.qubes["running"].state = "Running"
    assert run(qvm_power.pause, "-S", "running").code == 0
    assert daemon.qubes["running"].state == "Suspended"
    done = run(qvm_power.pause, "halted")
    assert (done.code, done.err) == (1, "Error: halted is Halted\n")


def test_unpause_wakes_paused_and_suspended_ones(daemon: FakeDaemon, run: Run) -> None:
    assert run(qvm_power.unpause, "paused", "asleep").code == 0
    assert states(daemon) == "Halted Running Running Running"


def test_unpausing_all_leaves_internal_ones_out(daemon: FakeDaemon, run: Run) -> None:
    for name in ("halted", "running", "asleep"):
        del daemon.qubes[name]
    daemon.add(FakeQube("preloaded", state="Paused", features={"internal": "1"}))
    assert run(qvm_power.unpause, "--all").code == 0
    assert states(daemon) == "Running Paused"


def test_shutdown_asks_once_and_does_not_mind_halted_ones(daemon: FakeDaemon, run: Run) -> None:
    done = run(qvm_shutdown.main, "running", "halted")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert daemon.qubes["running"].state == "Halted"
    assert daemon.asked("admin.vm.Shutdown") == [("running", "", b""), ("halted", "", b"")]


def test_a_refused_shutdown_is_told_and_no_failure(daemon: FakeDaemon, run: Run) -> None:
    refusal = RefusedError("QubesVMInUseError", "work is connected to it")
    daemon.refusals["admin.vm.Shutdown", "running"] = refusal
    done = run(qvm_shutdown.main, "running")
    assert (done.code, done.err) == (0, "running: work is connected to it\n")


@pytest.mark.parametrize(
    ("words", "argument"),
    [
        (["--force", "running"], "force"),
        (["--all"], "force"),
        (["--all", "--exclude", "paused", "--exclude", "asleep", "--exclude", "halted"], ""),
    ],
)
def test_force_is_passed_on_and_implied_by_all(
    daemon: FakeDaemon, run: Run, words: list[str], argument: str
) -> None:
    assert run(qvm_shutdown.main, *words).code == 0
    assert ("running", argument, b"") in daemon.asked("admin.vm.Shutdown")


def test_a_dry_run_asks_nobody(daemon: FakeDaemon, run: Run) -> None:
    assert run(qvm_shutdown.main, "--dry-run", "running").code == 0
    done = run(qvm_shutdown.main, "--dry-run", "--wait", "--timeout", "0.1", "running")
    assert (done.code, done.err) == (1, "qvm-shutdown: error: still up: running\n")
    assert not daemon.asked("admin.vm.Shutdown")
    assert not daemon.asked("admin.vm.Kill")


def test_waiting_kills_what_does_not_go_down(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("stubborn", state="Running", stubborn=True))
    done = run(qvm_shutdown.main, "--wait", "--timeout", "0.1", "stubborn")
    assert (done.code, done.err) == (0, "")
    assert daemon.asked("admin.vm.Kill") == [("stubborn", "", b"")]


def test_net_qubes_go_down_after_their_clients(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("net", state="Running"))
    in_use = RefusedError("QubesVMInUseError", "running is connected to it")
    daemon.refusals["admin.vm.Shutdown", "net"] = in_use
    daemon.on_halted = lambda _name: daemon.refusals.clear()
    done = run(qvm_shutdown.main, "--wait", "net", "running")
    assert (done.code, done.err) == (0, "")
    assert daemon.qubes["net"].state == "Halted"


def test_the_exit_code_counts_those_still_up(daemon: FakeDaemon, run: Run) -> None:
    for name in ("running", "paused"):
        daemon.refusals["admin.vm.Shutdown", name] = RefusedError("QubesVMError", "not now")
    done = run(qvm_shutdown.main, "--wait", "--timeout", "1", "running", "paused")
    assert done.code == 2
    assert done.err.splitlines() == [
        "running: not now",
        "paused: not now",
        "qvm-shutdown: error: still up: running, paused",
    ]


def test_a_disposable_that_vanishes_is_down(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("disp1", "DispVM", "Running"))
    daemon.on_halted = daemon.qubes.pop
    assert run(qvm_shutdown.main, "--wait", "disp1").code == 0


def disk(port: str, backend: str) -> str:
    """A block device's line in the list of what a backend shows."""
    items = f"device_id='x:1' port_id='{port}' devclass='block' backend_domain='{backend}'"
    return f"{port}:x:1 {items} interfaces='b******'"


@pytest.fixture
def usb(daemon: FakeDaemon) -> FakeQube:
    listed = {("block", "Available"): [disk("sda", "usb")]}
    return daemon.add(FakeQube("usb", state="Running", listed_devices=listed))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--drive", "usb:sda"], "_devtype='cdrom' _read-only='True'"),
        (["--drive", "hd:usb:sda"], "_devtype='disk' _read-only='False'"),
        (["--drive=cdrom:usb:sda"], "_devtype='cdrom' _read-only='True'"),
        (["--hddisk", "usb:sda"], "_devtype='disk' _read-only='False'"),
        (["--cdrom", "usb:sda"], "_devtype='cdrom' _read-only='True'"),
    ],
)
def test_a_drive_is_there_for_one_start(
    *, daemon: FakeDaemon, run: Run, usb: FakeQube, words: list[str], options: str
) -> None:
    done = run(qvm_power.start, *words, "halted")
    assert (done.code, done.err) == (0, "")
    ((qube, argument, payload),) = daemon.asked("admin.vm.device.block.Assign")
    assert (qube, argument) == ("halted", f"{usb.name}+sda+x+1")
    assert payload.decode().endswith(f"mode='required' frontend_domain='halted' {options}")
    changes = [
        request.method for request, _ in daemon.requests
        if request.method.split(".")[-1] in ("Assign", "Start", "Unassign")
    ]  # fmt: skip
    assert [method.split(".")[-1] for method in changes] == ["Assign", "Start", "Unassign"]


def test_a_start_that_fails_leaves_no_drive(daemon: FakeDaemon, run: Run, usb: FakeQube) -> None:
    daemon.refusals["admin.vm.Start", "halted"] = RefusedError("QubesMemoryError", "no memory")
    done = run(qvm_power.start, "--drive", f"{usb.name}:sda", "halted")
    assert (done.code, done.err) == (1, "Error: no memory\n")
    assert daemon.asked("admin.vm.device.block.Unassign") == [("halted", "usb+sda+x+1", b"")]


@pytest.mark.parametrize(
    ("drive", "code"),
    [("usb", 2), (":sda", 2), ("usb:", 2), ("cdrom:usb", 2), ("none:sda", 1), ("usb:sdb", 1)],
)
def test_a_drive_that_is_not_there(
    *, daemon: FakeDaemon, run: Run, usb: FakeQube, drive: str, code: int
) -> None:
    assert usb
    assert run(qvm_power.start, "--drive", drive, "halted").code == code
    assert not daemon.asked("admin.vm.Start")
    assert run(qvm_power.start, "--drive", "usb:sda", "--cdrom", "usb:sda", "halted").code == 2


@pytest.mark.parametrize("kind", ["--hddisk", "--cdrom"])
def test_a_file_is_made_a_drive_where_it_lies(
    *, daemon: FakeDaemon, run: Run, usb: FakeQube, kind: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    program = tmp_path / "losetup"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {tmp_path}/asked\necho /dev/loop7\n')
    (tmp_path / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    for one in (program, tmp_path / "sudo"):
        one.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = f"-f|--show|{'--read-only|' * (kind == '--cdrom')}/a b|-d|/dev/loop7|"
    for backend in (usb, daemon.qubes["dom0"]):
        backend.listed_devices = {("block", "Available"): [disk("loop7", backend.name)]}
        daemon.qubes["halted"].state = "Halted"
        assert run(qvm_power.start, kind, f"{backend.name}:/a b", "halted").code == 0
        assert (tmp_path / "asked").read_text() == asked
        (tmp_path / "asked").unlink()
    assert [call["user"] for call in daemon.calls] == ["root"] * 2
    program.write_text("#!/bin/sh\nexit 1\n")
    daemon.qubes["halted"].state = "Halted"
    done = run(qvm_power.start, kind, "usb:/none", "halted")
    assert (done.code, "/none in usb cannot be made a disk" in done.err) == (1, True)


def test_a_loop_device_that_does_not_show_up_is_given_up(
    *, daemon: FakeDaemon, run: Run, usb: FakeQube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "losetup").write_text("#!/bin/sh\necho /dev/loop7\n")
    (tmp_path / "losetup").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(drives, "_LOOP_TIMEOUT", 0.2)
    done = run(qvm_power.start, "--drive", f"{usb.name}:/x", "halted")
    assert (done.code, done.err) == (1, "Error: usb shows no block device loop7\n")
    assert not daemon.asked("admin.vm.Start")


def test_a_refused_shutdown_is_told_however_little_is_said(daemon: FakeDaemon, run: Run) -> None:
    daemon.refusals["admin.vm.Shutdown", "running"] = RefusedError("QubesVMError", "not now")
    assert run(qvm_shutdown.main, "-q", "running").err == "not now\n"
