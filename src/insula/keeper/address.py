"""Addresses of Unix sockets, which the kernel cuts at 107 bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from insula.protocol.errors import ReportableError

LONGEST = 107  # bytes of a path in struct sockaddr_un, without its ending NUL


class SocketPathError(ReportableError):
    """A socket cannot lie where it should."""


@contextmanager
def address(path: Path) -> Iterator[str]:
    """What to bind or to connect for path: itself, or a way through its open directory.

    Raises:
        SocketPathError: its name alone is too long, or its directory cannot be opened.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SocketPathError(f"{path.parent}: {error.strerror}") from error
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        if len(os.fsencode(short)) > LONGEST:
            raise SocketPathError(f"{path.name} is too long for the name of a socket")
        yield short
    finally:
        os.close(folder)
