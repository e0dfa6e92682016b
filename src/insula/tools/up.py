"""`insula up` and `insula down`: starting an instance's keeper and daemon, and ending them."""

import fcntl
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from insula.client import instance
from insula.client.admin import call
from insula.client.errors import (
    DaemonNotRunningError,
    QubesDaemonAccessError,
    QubesDaemonCommunicationError,
)
from insula.client.local_socket import request
from insula.protocol.errors import ReportableError

START_TIMEOUT = 60.0  # seconds; a first start judges KVM and takes over running qubes
STOP_TIMEOUT = 180.0
ANSWER_TIMEOUT = 5.0
_POLL = 0.02
_LOG_END = 2000  # characters of a log that an error shows
KEEPER_SOCKET = "keeper.sock"
DAEMON_LOG = "insulad.log"
SESSION_LOG = "session.log"
_DAEMON = [sys.executable, "-m", "insula.daemon"]
_NEW_STORE = [sys.executable, "-m", "insula.daemon.new_store"]


class DidNotStartError(ReportableError):
    """A process of the instance ended or did not answer."""


class PlaceError(ReportableError):
    """The instance cannot lie where it should."""

    def __init__(self, text: str, variable: str) -> None:
        super().__init__(text)
        self.hint = f"Set {variable} to a directory of your own; insula doctor knows more."


def up() -> bool:
    """Start what is not running and wait until the daemon answers; False when it was up."""
    with _starting() as logs:
        if daemon_answers() or not _await_former():
            return False
        _start_keeper(logs)
        _start_daemon(logs / DAEMON_LOG)
    return True


def new_store() -> None:
    """Make the store of a new instance, without starting it.

    Raises:
        ReportableError: there is one already, or it cannot be made.
    """
    with _starting():
        done = subprocess.run(
            _NEW_STORE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=START_TIMEOUT,
            env=_environment(),
            check=False,
        )
    if done.returncode:
        text, _, hint = done.stderr.decode(errors="replace").strip().partition("\n")
        error = ReportableError(text or f"it ended with status {done.returncode}")
        error.hint = hint or None
        raise error


def show_windows(display: str) -> None:
    """Have the windows of all qubes shown on a display; nothing happens when they are.

    Raises:
        DidNotStartError: the display does not answer.
    """
    logs = instance.home() / "log"
    _make(logs, "INSULA_HOME")
    session = [sys.executable, "-m", "insula.desktop.session", "--display", display]
    try:
        done = subprocess.run(
            [*session, "--background", str(logs / SESSION_LOG)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=START_TIMEOUT,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DidNotStartError("windows are not shown: no answer in time") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        text = said.removeprefix("insula session: error: ")
        raise DidNotStartError(f"windows are not shown: {text}")


def serve() -> NoReturn:
    """Start what is not running and become the daemon, as a supervisor wants it.

    Raises:
        DidNotStartError: a daemon runs already, or the keeper did not start.
    """
    with _starting() as logs:
        if daemon_answers():
            error = DidNotStartError("a daemon runs already")
            error.hint = "End it, with its qubes, by: insula down"
            raise error
        _start_keeper(logs)
        log = os.open(logs / DAEMON_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for number in (1, 2):
            os.dup2(log, number)
        os.close(log)
        os.chdir("/")
        os.execve(sys.executable, _DAEMON, _environment())


def down(*, kill: bool) -> bool:
    """Stop all qubes, the daemon and the keeper; False when nothing was running."""
    keeper = instance.run() / KEEPER_SOCKET
    try:
        request("stop", timeout=STOP_TIMEOUT, kill=kill)
    except (DaemonNotRunningError, QubesDaemonAccessError):
        if not instance.answers(keeper, socket.SOCK_SEQPACKET):
            return False
        # Its daemon is gone, its qubes are not: it takes one to end them.
        up()
        request("stop", timeout=STOP_TIMEOUT, kill=kill)
    with _starting():
        _await_end(instance.home() / "insulad.lock", instance.run() / f"{KEEPER_SOCKET}.lock")
    return True


def _await_end(*locks: Path) -> None:
    """Wait for the holders of locks, which they let go of as the last thing they do."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while any(map(_is_held, locks)):
        if time.monotonic() > deadline:
            raise DidNotStartError("the instance did not end")
        time.sleep(_POLL)


def _is_held(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def daemon_answers() -> bool:
    """Whether a daemon serves this instance: one that is dying may still be connected to."""
    try:
        call("dom0", "admin.vmclass.List", timeout=ANSWER_TIMEOUT)
    except (DaemonNotRunningError, QubesDaemonAccessError, QubesDaemonCommunicationError):
        return False
    return True


def _await_former() -> bool:
    """Wait for a daemon that does not answer to be gone; False when it came to answer.

    Raises:
        DidNotStartError: it is still there, and silent.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while _is_held(instance.home() / "insulad.lock"):
        if daemon_answers():
            return False
        if time.monotonic() > deadline:
            raise DidNotStartError("a daemon of this instance is there, but does not answer")
        time.sleep(_POLL)
    return True


@contextmanager
def _starting() -> Iterator[Path]:
    """One start at a time: the next waits, and finds everything done. Yields where logs lie."""
    run, home = instance.run(), instance.home()
    logs = home / "log"
    _make(run, "INSULA_RUN")
    _own(run)
    for folder in (home, logs):
        _make(folder, "INSULA_HOME")
    with (run / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield logs


def _start_keeper(logs: Path) -> None:
    """Returns when a keeper listens, in the background."""
    listening = instance.run() / KEEPER_SOCKET
    if instance.answers(listening, socket.SOCK_SEQPACKET):
        return
    argv = [sys.executable, "-m", "insula.keeper", "--socket", str(listening)]
    try:
        done = subprocess.run(
            [*argv, "--background", str(logs / "keeper.log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=START_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DidNotStartError(f"the keeper did not start within {START_TIMEOUT:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise DidNotStartError(f"the keeper did not start: {said[-_LOG_END:]}")


def _start_daemon(log: Path) -> None:
    """Returns when a daemon answers."""
    with log.open("ab") as output:
        begins = output.tell()
        process = subprocess.Popen(
            _DAEMON,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )
    deadline = time.monotonic() + START_TIMEOUT
    while not daemon_answers():
        if process.poll() is not None:
            raise _failure(f"the daemon ended with status {process.returncode}", log, begins)
        if time.monotonic() > deadline:
            raise _failure(f"the daemon did not answer in {START_TIMEOUT:.0f} s", log, begins)
        time.sleep(_POLL)


def _environment() -> dict[str, str]:
    places = {"INSULA_HOME": str(instance.home()), "INSULA_RUN": str(instance.run())}
    return {**os.environ, **places}


def _failure(text: str, log: Path, begins: int) -> DidNotStartError:
    """An error that shows the end of what was logged from a position on."""
    with log.open("rb") as opened:
        opened.seek(begins)
        said = opened.read().decode(errors="replace").strip()[-_LOG_END:]
    error = DidNotStartError(f"{text}; it said:\n{said}" if said else text)
    error.hint = f"All that it said is in {log}"
    return error


def _make(folder: Path, variable: str) -> None:
    """Make a directory of the instance, whose place the variable says.

    Raises:
        PlaceError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PlaceError(f"{folder} cannot be made: {error.strerror}", variable) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PlaceError(f"{folder} cannot be written to", variable)


def _own(run: Path) -> None:
    """Refuse a directory of sockets that somebody else could reach."""
    found = run.stat()
    if found.st_uid != os.geteuid():
        raise PlaceError(f"{run} is not yours", "INSULA_RUN")
    if found.st_mode & 0o077:
        error = ReportableError(f"{run} must be closed to others")
        error.hint = f"Close it with: chmod 700 {shlex.quote(str(run))}"
        raise error
