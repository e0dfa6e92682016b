"""One daemon uses an instance's directories, and nothing else that changes what is in them."""

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from insula.protocol.errors import ReportableError

_LOCK = "insulad.lock"


class InUseError(ReportableError):
    """A daemon uses a directory."""


def only_daemon(place: Path, locks: ExitStack) -> None:
    """Be the one daemon that uses a directory, for as long as locks are held.

    Raises:
        InUseError: there is one.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    locks.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        error = InUseError(f"another daemon uses {place}")
        error.hint = "Use that one, or other directories for INSULA_HOME and INSULA_RUN."
        raise error from None
