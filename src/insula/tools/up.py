"""`insula up` and `insula down`: starting an instance's keeper and daemon, and ending them."""

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from insula.client import instance
from insula.client.local_socket import DaemonNotRunningError, request
from insula.protocol.errors import ReportableError

START_TIMEOUT = 60.0  # seconds; a first start judges KVM and takes over running qubes
STOP_TIMEOUT = 180.0
_POLL = 0.02
_LOG_END = 2000  # characters of a log that an error shows


class DidNotStartError(ReportableError):
    """A process of the instance ended or did not answer."""


def up() -> bool:
    """Start what is not running and wait until the daemon answers; False when it was up."""
    run, home = instance.run(), instance.home()
    for folder in (run, home):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(run)
    with _alone(run / "up.lock"):
        if daemon_answers(run):
            return False
        logs = home / "log"
        logs.mkdir(mode=0o700, exist_ok=True)
        if not instance.answers(run / "keeper.sock", socket.SOCK_SEQPACKET):
            _start_keeper(run / "keeper.sock", logs / "keeper.log")
        _start_daemon(logs / "insulad.log", home, run)
        _await(lambda: daemon_answers(run), logs)
    return True


def down(*, kill: bool) -> bool:
    """Stop all qubes, the daemon and the keeper; False when nothing was running."""
    run = instance.run()
    try:
        request("stop", timeout=STOP_TIMEOUT, kill=kill)
    except DaemonNotRunningError:
        return False
    deadline = time.monotonic() + STOP_TIMEOUT
    while instance.answers(run / "keeper.sock", socket.SOCK_SEQPACKET):
        if time.monotonic() > deadline:
            raise DidNotStartError("the instance did not end")
        time.sleep(_POLL)
    return True


def daemon_answers(run: Path) -> bool:
    """Whether a daemon serves this instance."""
    return instance.answers(run / "qubesd.sock")


def _start_keeper(listening: Path, log: Path) -> None:
    """Returns when a keeper listens, in the background."""
    argv = [sys.executable, "-m", "insula.keeper", "--socket", str(listening)]
    try:
        done = subprocess.run(
            [*argv, "--background", str(log)],
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


def _start_daemon(log: Path, home: Path, run: Path) -> None:
    places = {"INSULA_HOME": str(home), "INSULA_RUN": str(run)}
    with log.open("ab") as output:
        subprocess.Popen(
            [sys.executable, "-m", "insula.daemon"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **places},
        )


def _await(ready: Callable[[], bool], logs: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        if time.monotonic() > deadline:
            ends = [f"{log}:\n{log.read_text()[-_LOG_END:]}" for log in sorted(logs.glob("*.log"))]
            raise DidNotStartError("the instance did not start\n" + "\n".join(ends))
        time.sleep(_POLL)


def _own(run: Path) -> None:
    """Refuse a directory of sockets that somebody else could reach."""
    found = run.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        error = ReportableError(f"{run} must belong to you alone")
        error.hint = f"chown and chmod it: chmod 700 {run}"
        raise error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One `insula up` at a time; the second waits and then finds everything done."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
