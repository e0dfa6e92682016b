"""An instance of Insula of its own: directories, daemon, commands."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.keeping import as_user

BIN = Path(sys.executable).parent
COMMAND_TIMEOUT = 120.0
BUILD_TIMEOUT = 900.0


@dataclass(slots=True)
class Instance:
    """Home and sockets in directories of the test's own; templates come from the person's cache.

    programs: where commands are. user: who runs them, if not who runs the tests. within: words
    before the command that brings it up.
    """

    home: Path
    run: Path
    environment: dict[str, str] = field(default_factory=dict)
    programs: Path = BIN
    user: int | None = None
    within: tuple[str, ...] = ()

    @classmethod
    def make(cls, scratch: Path) -> "Instance":
        # Sockets need a short path; pytest's directories are long.
        run = Path(tempfile.mkdtemp(prefix="insula-"))
        return cls(scratch / "home", run, dict(os.environ))

    def start(
        self, *words: str, terminal: int | None = None, within: tuple[str, ...] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start a command of the instance, with its streams piped, or on a terminal."""
        environment = {
            **self.environment,
            "INSULA_HOME": str(self.home),
            "INSULA_RUN": str(self.run),
        }
        stream = subprocess.PIPE if terminal is None else terminal
        return subprocess.Popen(
            [*within, str(self.programs / words[0]), *words[1:]],
            stdin=stream,
            stdout=stream,
            stderr=stream,
            env=environment,
            **as_user(self.user),
        )

    @contextmanager
    def on_display(self, display: str) -> Iterator[None]:
        """Have commands find a display for the length of the block."""
        self.environment["DISPLAY"] = display
        try:
            yield
        finally:
            del self.environment["DISPLAY"]

    @contextmanager
    def running(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A command for the length of the block; one that has not ended by then is killed."""
        process = self.start(*words)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def command(
        self, *words: str, given: bytes = b"", timeout: float = COMMAND_TIMEOUT
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a command to its end."""
        process = self.start(*words)
        try:
            out, err = process.communicate(given, timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def say(self, *words: str, given: bytes = b"", timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a command that has to succeed; returns its output."""
        done = self.command(*words, given=given, timeout=timeout)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def remove(self, name: str) -> None:
        """Remove a qube, once the disposables made from it have gone: they go after their calls."""
        removed = ("qvm-remove", "--force", name)
        wait_for(lambda: self.command(*removed).returncode == 0, f"the removal of {name}")

    def up(self) -> None:
        process = self.start("insula", "up", within=self.within)
        _, said = process.communicate(timeout=COMMAND_TIMEOUT)
        assert process.returncode == 0, said.decode()

    def down(self) -> None:
        self.command("insula", "down", "--kill")

    def status(self) -> dict[str, Any]:
        """What `insula status` knows."""
        loaded: dict[str, Any] = json.loads(self.say("insula", "status", "--json"))
        return loaded

    def ask_raw(self, request: bytes) -> bytes:
        """The Admin API's answer to any bytes."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(COMMAND_TIMEOUT)
            connection.connect(str(self.run / "qubesd.sock"))
            answer = b""
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(65_536):
                    answer += data
            except ConnectionError:
                return b""
            return answer

    def logs(self) -> str:
        """What keeper and daemon logged, for a failure's report."""
        found = sorted((self.home / "log").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-6000:]}" for log in found)


def wait_for(condition: Callable[[], object], what: str, *, timeout: float = 60.0) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not within timeout seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
