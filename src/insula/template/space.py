"""Room on a file system: asked for before a build, and the reason when there was too little."""

import os
from pathlib import Path

from insula.protocol.errors import ReportableError

_GIB = 1024**3
_NEARLY_NONE = 64 * 1024**2  # bytes; a failed build with less than this left ran out of space


class NoSpaceError(ReportableError):
    """A directory's file system cannot take what is to be made there."""

    def __init__(self, directory: Path, needed: int, free: int) -> None:
        super().__init__(
            f"no space left in {directory}: a template needs {needed / _GIB:.1f} GiB there, "
            f"{free / _GIB:.1f} GiB are free"
        )
        self.hint = "Free some space, or set INSULA_HOME to a directory on a larger disk."


def free_space(directory: Path) -> int:
    """Bytes that this user may still write below directory."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def require_space(directory: Path, needed: int) -> None:
    """Do nothing when needed bytes are free.

    Raises:
        NoSpaceError: they are not.
    """
    free = free_space(directory)
    if free < needed:
        raise NoSpaceError(directory, needed, free)


def ran_out(directory: Path, output: str) -> bool:
    """Whether a program that failed with output did so for lack of space in directory."""
    return "No space left on device" in output or free_space(directory) < _NEARLY_NONE
