"""Starting a keeper: its socket, its place in the background, what it may and may not."""

import argparse
import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

from insula.keeper.address import address
from insula.keeper.server import Keeper
from insula.protocol.errors import ReportableError

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_BACKLOG = 64
_LOCK_TIMEOUT = 10.0  # seconds that a keeper has to end, or to begin to listen
_LOCK_POLL = 0.01


class KeeperInTheWayError(ReportableError):
    """Another keeper neither serves nor ends."""


def main() -> int:
    """Serve; the lock and the socket live as long as the process."""
    parser = argparse.ArgumentParser(prog="insula-keeper", description="Hold an instance's jails.")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument(
        "--background",
        type=Path,
        metavar="LOG",
        help="go on in the background and log there; the command ends once the keeper listens",
    )
    options = parser.parse_args()
    path: Path = options.socket.absolute()
    log: Path | None = options.background and options.background.absolute()
    if log is not None:
        # What a careless starter left open would otherwise stay open as long as we live.
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    try:
        listener = listen(path)
        if listener is None:
            return 0
        if log is not None:
            _background(log)
    except (ReportableError, OSError) as error:
        print(f"insula-keeper: {error}", file=sys.stderr)
        return 1
    _settle()
    Keeper(listener, path).run()
    return 0


def listen(path: Path) -> socket.socket | None:
    """The keeper's socket, for its owner alone; None when another keeper listens there.

    Raises:
        SocketPathError: no socket can lie there. OSError: it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(f"{path}.lock", flags, 0o600)  # It stays open, and locked, as long as we live.
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while not _locked(lock):
        if _listens(path):
            os.close(lock)
            return None
        if time.monotonic() > deadline:
            raise KeeperInTheWayError(f"another keeper has {path} and does not listen there")
        time.sleep(_LOCK_POLL)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        with address(path) as where:
            listener.bind(where)
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe, address(path) as where:
        try:
            probe.connect(where)
        except OSError:
            return False
    return True


def _background(log: Path) -> None:
    """Become nobody's child, with a session, streams and a directory of its own."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    output = os.open(log, flags, 0o600)
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    for source, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, number)
    os.close(nothing)
    os.close(output)
    os.chdir("/")


def _settle() -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
