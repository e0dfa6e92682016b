"""Updates by apt: what there is to install, and installing it."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from typing import IO

from insula.protocol.updating import Package

PROGRAM = "/usr/bin/apt-get"
FETCHING, UNPACKING = "dl", "pm"
Tell = Callable[[str, int], object]  # one of the two, and its percentage
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
_UPGRADE = ("dist-upgrade", "-y")
# Files that somebody changed stay as they are; all others follow their packages.
_OPTIONS = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
_INST = re.compile(r"Inst (\S+) (?:\[(\S+)\] )?\((\S+) .*\).*")
_STATUS = re.compile(rb"(dl|pm)status:[^:]*:(\d+)(?:\.\d+)?:.*")


class Apt:
    """Runs apt-get. program: another one for tests; output: where it says what it does."""

    def __init__(self, program: Sequence[str] = (PROGRAM,), output: IO[str] | None = None) -> None:
        self._program = tuple(program)
        self._output = output

    def refresh(self, tell: Tell = lambda _phase, _percent: None) -> None:
        """Fetch the lists of packages.

        Raises:
            OSError, subprocess.CalledProcessError: that failed.
        """
        self._run(tell, "update", "--error-on=any")

    def upgrades(self) -> list[Package]:
        """What would be installed.

        Raises:
            OSError, subprocess.CalledProcessError: that failed.
        """
        words = [*self._program, "-s", "-o", "Debug::NoLocking=1", *_UPGRADE]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._output,
            text=True,
            env={**os.environ, **_ENVIRONMENT},
            check=True,
        )
        found = map(_INST.fullmatch, done.stdout.splitlines())
        return [Package(one[1], one[2], one[3]) for one in found if one is not None]

    def upgrade(self, tell: Tell) -> None:
        """Install all of it, and keep no copies of packages.

        Raises:
            OSError, subprocess.CalledProcessError: that failed.
        """
        self._run(tell, *_OPTIONS, *_UPGRADE)
        self._run(lambda _phase, _percent: None, "clean")

    def _run(self, tell: Tell, *words: str) -> None:
        """Run it, and tell how far it is, as it says on a pipe of its own."""
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as status:
            try:
                process = subprocess.Popen(
                    [*self._program, "-q", "-o", f"APT::Status-Fd={writing}", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    env={**os.environ, **_ENVIRONMENT},
                    pass_fds=(writing,),
                )
            finally:
                os.close(writing)
            for line in status:
                if (found := _STATUS.fullmatch(line.rstrip(b"\n"))) is not None:
                    tell(found[1].decode(), min(int(found[2]), 100))
            if code := process.wait():
                raise subprocess.CalledProcessError(code, " ".join([*self._program, *words]))
