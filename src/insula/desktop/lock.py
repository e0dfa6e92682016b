"""One session an instance: a lock that says on which display it is."""

import fcntl
import os
from pathlib import Path

from insula.protocol.errors import ReportableError

NAME = "session.lock"
_LONGEST = 200  # bytes of a display's name


class AlreadyShownError(ReportableError):
    """Another session shows this instance's windows."""

    def __init__(self, display: str) -> None:
        super().__init__(f"the windows of this instance are shown on {display} already")
        self.display = display


def take(run: Path, display: str) -> int:
    """Be the instance's session; the lock is held until the descriptor is closed.

    Raises:
        AlreadyShownError: another is.
    """
    lock = os.open(run / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        shown_on = _content(lock)
        os.close(lock)
        raise AlreadyShownError(shown_on) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{display}\n".encode(), 0)
    return lock


def release(lock: int) -> None:
    """Be the session no more."""
    os.ftruncate(lock, 0)
    os.close(lock)


def shown_on(run: Path) -> str | None:
    """The display of the instance's session; None when none runs."""
    try:
        lock = os.open(run / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # Shared, so that two who look are not taken for a session by each other.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _content(lock) or None
    finally:
        os.close(lock)
    return None


def _content(lock: int) -> str:
    return os.pread(lock, _LONGEST, 0).decode("utf-8", "replace").strip()
