"""The daemon as a process: one for an instance, and how it ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from insula.keeper.client import KeeperClient, start_keeper
from insula.protocol import admin
from tests.serving import TIMEOUT


@dataclass
class Host:
    """Where instances live, and daemons that were started."""

    home: Path
    run: Path
    daemons: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        places = {"INSULA_HOME": str(self.home), "INSULA_RUN": str(self.run)}
        daemon = subprocess.Popen(
            [sys.executable, "-m", "insula.daemon"],
            env={**os.environ, "INSULA_ENGINE": "memory", **places, **environment},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.daemons.append(daemon)
        return daemon

    def serving(self) -> "subprocess.Popen[str]":
        """A daemon that answers."""
        daemon = self.start()
        until(lambda: self.call("admin.vm.List") is not None)
        return daemon

    def call(self, method: str, destination: str = "dom0", argument: str = "") -> bytes | None:
        """The answer to a call; None where nobody answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            try:
                connection.connect(str(self.run / "qubesd.sock"))
            except OSError:
                return None
            payload = b"name=tree label=red" if method.startswith("admin.vm.Create.") else b""
            connection.sendall(admin.encode_request(method, argument, destination, payload))
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def agents(self) -> set[int]:
        """Processes of machines, which the in-memory engine leaves when its daemon ends."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"INSULA_PORTS_DIR={self.run}/".encode() in entry.read_bytes():
                    found.add(int(entry.parent.name))
        return found


def until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="insula-") as run:
        made = Host(tmp_path / "home", Path(run))
        start_keeper(made.run / "keeper.sock", tmp_path / "keeper.log")
        try:
            yield made
        finally:
            for daemon in made.daemons:
                daemon.kill()
                daemon.communicate()
            for pid in made.agents():
                os.kill(pid, signal.SIGKILL)
            asyncio.run(_stop_keeper(made.run))


async def _stop_keeper(run: Path) -> None:
    keeper = await KeeperClient.connect(run / "keeper.sock")
    await keeper.stop()
    await keeper.close()


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
    assert host.call("admin.vm.Create.TemplateVM") == b"0\0"
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
