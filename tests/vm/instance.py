"""An instance of Insula of its own: directories, daemon, commands."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
COMMAND_TIMEOUT = 120.0
BUILD_TIMEOUT = 900.0


@dataclass(slots=True)
class Instance:
    """Home and sockets in directories of the test's own; templates come from the person's cache."""

    home: Path
    run: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, scratch: Path) -> "Instance":
        # Sockets need a short path; pytest's directories are long.
        run = Path(tempfile.mkdtemp(prefix="insula-"))
        return cls(scratch / "home", run, dict(os.environ))

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command of the instance, with its streams piped."""
        environment = {
            **self.environment,
            "INSULA_HOME": str(self.home),
            "INSULA_RUN": str(self.run),
        }
        return subprocess.Popen(
            [str(BIN / words[0]), *words[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

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

    def up(self) -> None:
        self.say("insula", "up")

    def down(self) -> None:
        self.command("insula", "down", "--kill")

    def logs(self) -> str:
        """What keeper and daemon logged, for a failure's report."""
        found = sorted((self.home / "log").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-6000:]}" for log in found)
