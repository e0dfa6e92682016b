"""A session: viewers come and go with qubes, come back when they die, and outlive daemons."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.desktop.fake_daemon import FakeDaemon, FakeQube
from tests.desktop.host import Host
from tests.desktop.joined import LASTING, SOURCES, XServer, running, running_agent, wait_for

SESSION = [sys.executable, "-m", "insula.desktop.session"]


def environment(host: Host, display: str) -> dict[str, str]:
    return {"INSULA_RUN": str(host.run), "DISPLAY": display, "PYTHONPATH": str(SOURCES)}


@pytest.fixture
def daemon(host: Host) -> Iterator[FakeDaemon]:
    with FakeDaemon.serving(host) as serving:
        yield serving


@pytest.fixture
def work(
    daemon: FakeDaemon, host: Host, qube_display: XServer, tmp_path: Path
) -> Iterator[FakeQube]:
    """A qube that runs and has a terminal open."""
    qube = FakeQube("work")
    daemon.qubes["work"] = qube
    with (
        running_agent(host, qube_display, tmp_path, qube.uuid),
        qube_display.program("xterm", "-title", "hello", *LASTING),
    ):
        yield qube


@contextmanager
def session(
    host: Host, desktop: XServer, *more: str, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    with running([*SESSION, *more], environment(host, desktop.display), **options) as process:
        yield process


def test_windows_of_a_running_qube_are_shown_and_end_with_the_session(
    host: Host, desktop: XServer, daemon: FakeDaemon, work: FakeQube
) -> None:
    with session(host, desktop) as process:
        assert wait_for(lambda: desktop.framed("hello"), "the window").title == "[work] hello"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    wait_for(lambda: desktop.framed("hello") is None, "the window's end")
    wait_for(lambda: gone(work.opened[-1].pid), "the viewer's end")
    assert daemon.asked == 1


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_qube_is_shown_from_its_start_to_its_end(
    host: Host, desktop: XServer, daemon: FakeDaemon, work: FakeQube
) -> None:
    work.running = False
    with session(host, desktop):
        wait_for(daemon.followers, "the session")
        daemon.happened("work", "domain-pre-start")
        work.running = True
        daemon.happened("work", "domain-spawn")
        daemon.happened("work", "domain-start")
        wait_for(lambda: desktop.framed("hello"), "the window")
        work.running = False
        daemon.happened("work", "domain-shutdown")
        wait_for(lambda: desktop.framed("hello") is None, "the window's end")
        wait_for(lambda: gone(work.opened[-1].pid), "the viewer's end")
        assert len(work.opened) == 1


def test_a_killed_viewer_is_reopened_and_its_qube_unharmed(
    host: Host, desktop: XServer, work: FakeQube, qube_display: XServer
) -> None:
    with session(host, desktop):
        wait_for(lambda: desktop.framed("hello"), "the window")
        before = qube_display.run("xwininfo", "-name", "hello", "-int")
        for _ in range(2):
            killed = work.opened[-1]
            signal.pidfd_send_signal(killed.pidfd, signal.SIGKILL)
            wait_for(lambda: work.opened[-1].pid != killed.pid, "another viewer")  # noqa: B023
            wait_for(lambda: desktop.framed("hello"), "the window again")
        after = qube_display.run("xwininfo", "-name", "hello", "-int")
        assert [line for line in before.splitlines() if "Window id" in line] == [
            line for line in after.splitlines() if "Window id" in line
        ]


def test_viewers_go_on_while_the_daemon_is_away_and_new_qubes_are_shown_after(
    host: Host,
    desktop: XServer,
    daemon: FakeDaemon,
    work: FakeQube,
    qube_display: XServer,
) -> None:
    with ExitStack() as stack:
        stack.enter_context(session(host, desktop))
        wait_for(lambda: desktop.framed("hello"), "the window")
        daemon.stop()
        pid = work.opened[-1].pid
        stack.enter_context(qube_display.program("xterm", "-title", "meanwhile", *LASTING))
        wait_for(lambda: desktop.framed("meanwhile"), "a window while no daemon is there")
        other = FakeQube("other")
        daemon.qubes["other"] = other
        away = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        second = stack.enter_context(XServer.started("800x600x24"))
        stack.enter_context(running_agent(host, second, away, other.uuid))
        stack.enter_context(second.program("xterm", "-title", "started", *LASTING))
        daemon.start()
        assert wait_for(lambda: desktop.framed("started"), "the qube").title == "[other] started"
        assert not gone(pid)
        assert len(work.opened) == 1


def test_a_viewer_that_dies_while_the_daemon_is_away_is_reopened_after(
    host: Host, desktop: XServer, daemon: FakeDaemon, work: FakeQube
) -> None:
    with session(host, desktop):
        wait_for(lambda: desktop.framed("hello"), "the window")
        daemon.stop()
        signal.pidfd_send_signal(work.opened[-1].pidfd, signal.SIGKILL)
        wait_for(lambda: desktop.framed("hello") is None, "the window's end")
        daemon.start()
        wait_for(lambda: desktop.framed("hello"), "the window again")


def test_a_qube_that_ended_while_the_daemon_was_away_is_not_asked_for(
    host: Host, desktop: XServer, daemon: FakeDaemon, work: FakeQube
) -> None:
    with session(host, desktop):
        wait_for(lambda: desktop.framed("hello"), "the window")
        daemon.stop()
        work.running = False
        daemon.start()
        wait_for(lambda: desktop.framed("hello") is None, "the window's end")
        assert len(work.opened) == 1


def test_a_qube_without_a_gui_has_no_viewer(
    host: Host, desktop: XServer, daemon: FakeDaemon, work: FakeQube
) -> None:
    work.features["gui"] = ""
    daemon.qubes["later"] = FakeQube("later", running=False)
    with session(host, desktop):
        wait_for(daemon.followers, "the session")
        daemon.happened("work", "domain-start")
        daemon.happened("later", "domain-start")
        wait_for(lambda: daemon.asked, "the question about the other one")
        assert work.opened == []


@pytest.mark.usefixtures("work")
def test_a_viewer_that_cannot_be_opened_is_not_asked_for_at_once_again(
    host: Host, desktop: XServer, daemon: FakeDaemon
) -> None:
    daemon.refuses = True
    with session(host, desktop):
        wait_for(lambda: daemon.asked == 2, "a second try")
        daemon.refuses = False
        wait_for(lambda: desktop.framed("hello"), "the window")
        assert daemon.asked <= 4


def test_one_session_an_instance(
    host: Host, desktop: XServer, daemon: FakeDaemon, qube_display: XServer
) -> None:
    with session(host, desktop):
        wait_for(daemon.followers, "the session")
        second = subprocess.run(
            SESSION,
            env={**os.environ, **environment(host, qube_display.display)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert second.returncode == 1
        assert f"shown on {desktop.display} already" in second.stderr
        assert daemon.followers() == 1


def test_a_session_goes_to_the_background_once_it_has_the_display(
    host: Host, daemon: FakeDaemon, tmp_path: Path
) -> None:
    log = tmp_path / "session.log"
    with XServer.started("640x480x24") as display:
        for _ in range(2):  # a second one finds the first and is content
            done = subprocess.run(
                [*SESSION, "--background", str(log)],
                env={**os.environ, **environment(host, display.display)},
                timeout=20,
                check=False,
            )
            assert done.returncode == 0
        wait_for(daemon.followers, "the session")
        assert daemon.followers() == 1
    wait_for(lambda: "the display is gone" in log.read_text(), "its last word")
    wait_for(lambda: (host.run / "session.lock").read_text() == "", "its end")


def test_a_display_that_is_not_there_is_an_error_at_once(host: Host, tmp_path: Path) -> None:
    for display, said in ((":4711", "does not answer"), ("", "names no X server")):
        done = subprocess.run(
            [*SESSION, "--background", str(tmp_path / "log")],
            env={**os.environ, **environment(host, display)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 1
        assert said in done.stderr


def test_the_displays_keyboard_layout_is_told(host: Host, daemon: FakeDaemon) -> None:
    with XServer.started("640x480x24") as display, session(host, display):
        display.run("setxkbmap", "-layout", "de,us", "-variant", "nodeadkeys,")
        wait_for(lambda: daemon.properties.get("keyboard_layout") == "de+nodeadkeys+", "the layout")
