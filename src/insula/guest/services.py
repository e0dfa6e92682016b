"""Finding the program or socket of a service (qrexec-wire.md section 9)."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from insula.protocol.command import ServiceCall

AGENT_VOLUME = "/usr/lib/insula"
SEARCH = "/run/qubes-rpc:/usr/local/etc/qubes-rpc:/etc/qubes-rpc:" + f"{AGENT_VOLUME}/qubes-rpc"
NAME_LIMIT = 255
_TCP = "/dev/tcp"


@dataclass(frozen=True, slots=True)
class Found:
    """A service's entry. kind: program, socket or tcp (path is then the link's text)."""

    path: str
    kind: str


class BrokenServiceError(Exception):
    """There is an entry, but it cannot be run: exit code 125."""


def find_service(call: ServiceCall, search: str) -> Found | None:
    """Look for NAME+ARGUMENT everywhere, then for NAME everywhere; None when there is none.

    Raises:
        BrokenServiceError: an entry is no program, socket or TCP link, or cannot be read.
    """
    specific = f"{call.name}+{call.argument or ''}"
    for name in (specific, call.name):
        if len(os.fsencode(name)) > NAME_LIMIT:
            continue
        for directory in search.split(":"):
            found = _look(os.path.join(directory, name))  # noqa: PTH118 - on every call's path
            if found is not None:
                return found
    return None


def _look(path: str) -> Found | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BrokenServiceError(str(error)) from error
    if stat.S_ISLNK(status.st_mode):
        target = str(Path(path).readlink())
        if target == _TCP or target.startswith(_TCP + "/"):
            if target == _TCP + "/":
                raise BrokenServiceError(f"{path} names no host")
            return Found(target, "tcp")
        try:
            status = os.stat(path)  # noqa: PTH116
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BrokenServiceError(str(error)) from error
    if stat.S_ISSOCK(status.st_mode):
        return Found(path, "socket")
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
        return Found(path, "program")
    raise BrokenServiceError(f"{path} is neither a program nor a socket")
