"""qubes.ShowInTerminal, with a terminal that writes down what it shows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT = 30.0  # seconds
_XTERM = """#!{python}
import os, pty, sys
pid, screen = pty.fork()
if not pid:
    os.execvp(sys.argv[4], sys.argv[4:])
shown = b""
while not shown.endswith(b"!"):
    shown += os.read(screen, 100)
os.write(screen, b"typed\\x03\\r")
open({kept!r}, "wb").write(b" ".join([*map(os.fsencode, sys.argv[1:4]), shown]))
try:
    os.read(screen, {more})
except OSError:
    pass  # Its programs are gone.
os.close(screen)
os.waitpid(pid, 0)
"""


@contextmanager
def service(directory: Path, *, more: int = 1) -> Iterator["subprocess.Popen[bytes]"]:
    """The service as a process; more: bytes that the terminal waits for before it is closed."""
    xterm = directory / "xterm"
    xterm.write_text(_XTERM.format(python=sys.executable, kept=str(directory / "shown"), more=more))
    xterm.chmod(0o700)
    with _started(f"{directory}:{os.environ['PATH']}") as process:
        yield process


@contextmanager
def _started(path: str) -> Iterator["subprocess.Popen[bytes]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "insula.guest.services.terminal"],
        stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "PATH": path},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def test_what_comes_is_shown_and_what_is_typed_sent(tmp_path: Path) -> None:
    with service(tmp_path) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"one\r\ntwo\n!")
        running.stdin.flush()
        assert running.stdout.read(7) == b"typed\x03\r"
        running.stdin.close()  # The other qube is done: so is the terminal.
        assert running.stdout.read() == b""
        assert running.wait(TIMEOUT) == 0
    assert (tmp_path / "shown").read_bytes() == b"-T Terminal of another qube -e one\r\ntwo\n!"


def test_a_terminal_that_is_closed_ends_the_call(tmp_path: Path) -> None:
    with service(tmp_path, more=0) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"!")
        running.stdin.flush()
        assert running.stdout.read() in (b"typed\x03\r", b"")
        assert running.wait(TIMEOUT) == 0


def test_without_a_terminal_it_says_so(tmp_path: Path) -> None:
    with _started(str(tmp_path)) as running:
        assert running.wait(TIMEOUT) == 127
        assert running.stderr is not None
        assert running.stderr.read() == b"xterm: No such file or directory\n"
