"""Finding the program or socket of a service, and its configuration (qrexec-wire.md section 9)."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from insula.protocol.command import ServiceCall
from insula.protocol.errors import ProtocolError
from insula.protocol.service_config import ServiceConfig, parse_service_config

AGENT_VOLUME = "/usr/lib/insula"
SEARCH = "/run/qubes-rpc:/usr/local/etc/qubes-rpc:/etc/qubes-rpc:" + f"{AGENT_VOLUME}/qubes-rpc"
CONFIG_SEARCH = (
    "/run/qubes/rpc-config:/usr/local/etc/qubes/rpc-config:/etc/qubes/rpc-config:"
    f"{AGENT_VOLUME}/rpc-config"
)
NAME_LIMIT = 255
_NO_CONFIG = ServiceConfig()
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
    for path in _candidates(call, search):
        found = _look(path)
        if found is not None:
            return found
    return None


def find_config(call: ServiceCall, search: str) -> ServiceConfig:
    """The configuration of a service, from the first file found; the defaults without one.

    Raises:
        BrokenServiceError: the file cannot be read, or understood.
    """
    for path in _candidates(call, search):
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - on every call's path
                content = file.read()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BrokenServiceError(str(error)) from error
        try:
            config = parse_service_config(content)
        except ProtocolError as error:
            raise BrokenServiceError(f"{path}: {error}") from error
        if config.unknown:
            print(f"{path}: {', '.join(config.unknown)} means nothing here", flush=True)
        return config
    return _NO_CONFIG


def _candidates(call: ServiceCall, search: str) -> Iterator[str]:
    """Where a file of a service may be, in the order of the search."""
    specific = f"{call.name}+{call.argument or ''}"
    for name in (specific, call.name):
        if len(os.fsencode(name)) > NAME_LIMIT:
            continue
        for directory in search.split(":"):
            yield os.path.join(directory, name)  # noqa: PTH118 - on every call's path


def _look(path: str) -> Found | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BrokenServiceError(str(error)) from error
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)  # noqa: PTH115 - a path object would drop a slash at the end
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
    if stat.S_ISREG(status.st_mode) and os.access(path, os.X_OK, effective_ids=True):
        return Found(path, "program")
    raise BrokenServiceError(f"{path} is neither a program nor a socket")
