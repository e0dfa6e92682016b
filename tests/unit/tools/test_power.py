"""qvm-start, -kill, -pause, -unpause and -shutdown: what they ask for, and how they end."""

import pytest

from insula.tools import qvm_power, qvm_shutdown
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
