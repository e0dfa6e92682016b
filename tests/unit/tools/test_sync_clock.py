"""qvm-sync-clock in dom0: what is believed, and what it sets."""

import os
import time

import pytest

from insula.tools import qvm_sync_clock
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_agent import SERVICES
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, answer

NOW = 1_800_000_000 * 10**9
TOLD = "2027-01-15T08:00:01,500000000+00:00\\n"


@pytest.fixture
def told(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the clock was set to. The clock qube tells $TOLD."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    monkeypatch.setattr(time, "clock_settime_ns", lambda *given: found.append(given))
    monkeypatch.setitem(SERVICES, "qubes.GetDate", ["sh", "-c", 'printf "$TOLD"; exit ${CODE:-0}'])
    monkeypatch.setenv("TOLD", TOLD)
    daemon.add(FakeQube("clock", state="Running"))
    daemon.system["clockvm"] = answer("clock", "vm")
    return found


def test_the_clock_is_set_to_that_of_the_clock_qube(
    run: Run, daemon: FakeDaemon, told: list[tuple[int, int]]
) -> None:
    done = run(qvm_sync_clock.main)
    assert (done.code, done.out) == (0, "")
    assert done.err == "qvm-sync-clock: the clock was 1.500 s slow\n"
    assert told == [(time.CLOCK_REALTIME, NOW + 1_500_000_000)]
    (call,) = daemon.calls
    assert (call["target"], call["service"]) == ("clock", "qubes.GetDate+nanoseconds")
    assert call["autostart"] is False
    assert run(qvm_sync_clock.main, "-q").err == ""


@pytest.mark.parametrize(
    "text", ["2027-01-15\\n", "2001-01-01T00:00:00+00:00\\n", TOLD + TOLD, "", "x" * 10_000]
)
def test_what_is_no_time_sets_nothing(
    run: Run, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("TOLD", text)
    done = run(qvm_sync_clock.main)
    assert (done.code, done.out, told) == (1, "", [])
    assert done.err.startswith("qvm-sync-clock: error: ")


def test_a_service_that_fails_sets_nothing(
    run: Run, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", "3")
    done = run(qvm_sync_clock.main)
    assert (done.code, told) == (1, [])
    assert "in clock failed (status 3)" in done.err


def test_without_a_clock_qube_or_rights_nothing_is_asked(
    *, run: Run, daemon: FakeDaemon, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.system["clockvm"] = NONE
    done = run(qvm_sync_clock.main)
    assert (done.code, done.err.splitlines()[-1]) == (1, "Name one with: qubes-prefs clockvm NAME")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    daemon.system["clockvm"] = answer("clock", "vm")
    done = run(qvm_sync_clock.main)
    assert (done.code, done.err) == (1, "qvm-sync-clock: error: only root can set the clock\n")
    assert (told, daemon.calls) == ([], [])
