"""Daemons as processes, on the in-memory engine, with the keeper they need."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

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

    def call(
        self, method: str, destination: str = "dom0", argument: str = "", payload: bytes = b""
    ) -> bytes | None:
        """The answer to a call, empty where it broke off; None where nobody answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            try:
                connection.connect(str(self.run / "qubesd.sock"))
            except OSError:
                return None
            received = b""
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(admin.encode_request(method, argument, destination, payload))
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(65536):
                    received += data
            return received

    def agents(self) -> set[int]:
        """Processes of machines, which the in-memory engine leaves when its daemon ends."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"INSULA_PORTS_DIR={self.run}/".encode() in entry.read_bytes():
                    found.add(int(entry.parent.name))
        return found


def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event announces."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


@contextmanager
def hosting(home: Path) -> Iterator[Host]:
    """A place for an instance; what runs of it is ended. Sockets need a path of their own."""
    with tempfile.TemporaryDirectory(prefix="insula-") as run:
        made = Host(home, Path(run))
        start_keeper(made.run / "keeper.sock", home.parent / "keeper.log")
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
