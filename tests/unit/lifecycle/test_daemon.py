"""The daemon as a process: one for an instance, and how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Host, hosting
from tests.serving import TIMEOUT


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with hosting(tmp_path / "home") as made:
        yield made


def _said(daemon: "subprocess.Popen[str]") -> str:
    _, said = daemon.communicate(timeout=TIMEOUT)
    return said


@pytest.mark.parametrize("place", ["INSULA_HOME", "INSULA_RUN"])
def test_a_second_daemon_of_an_instance_is_refused(host: Host, tmp_path: Path, place: str) -> None:
    host.serving()
    other = {"INSULA_HOME": "INSULA_RUN", "INSULA_RUN": "INSULA_HOME"}[place]
    second = host.start(**{other: str(tmp_path / "other")})
    said = _said(second)
    assert second.returncode == 1
    shared = host.home if place == "INSULA_HOME" else host.run
    assert f"another daemon uses {shared}" in said
    assert "other directories" in said
    assert host.call("admin.vm.List") is not None


def test_a_damaged_store_is_named(host: Host) -> None:
    host.home.mkdir()
    (host.home / "insula.db").write_bytes(b"not a database at all" * 1000)
    daemon = host.start()
    said = _said(daemon)
    assert daemon.returncode == 1
    assert f"{host.home}/insula.db cannot be opened" in said
    assert "Traceback" not in said


def test_a_daemon_without_an_instance_says_how_to_start_one(host: Host) -> None:
    environment = {key: value for key, value in os.environ.items() if "INSULA" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "insula.daemon"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "insula up" in done.stderr
    assert host.agents() == set()


def test_an_unknown_engine_is_refused(host: Host) -> None:
    daemon = host.start(INSULA_ENGINE="steam")
    assert "not 'steam'" in _said(daemon)
    assert daemon.returncode == 1


def test_a_signal_ends_the_daemon_and_leaves_nothing_of_its_own(host: Host) -> None:
    daemon = host.serving()
    assert host.call("admin.vm.Create.TemplateVM", payload=b"name=tree label=red") == b"0\0"
    daemon.send_signal(signal.SIGTERM)
    said = _said(daemon)
    assert daemon.returncode == 0
    assert "ERROR" not in said
    assert "Traceback" not in said
    assert not (host.run / "qubesd.sock").exists()
    assert not (host.run / "local.sock").exists()
    host.serving()
    assert b"tree class=TemplateVM" in (host.call("admin.vm.List") or b"")


def test_a_killed_daemons_sockets_are_taken_over(host: Host) -> None:
    daemon = host.serving()
    daemon.kill()
    daemon.wait()
    assert (host.run / "qubesd.sock").exists()
    host.serving()
