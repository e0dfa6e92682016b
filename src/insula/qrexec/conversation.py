"""Services that are sockets: of this machine, or of a numeric address (qrexec-wire.md 9.4, 9.5)."""

import errno
import os
import re
import socket
from dataclasses import dataclass

from insula.protocol.command import ServiceCall
from insula.protocol.service_config import ServiceConfig
from insula.qrexec.services import BrokenServiceError, Found

_TCP = "/dev/tcp"
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_LONGEST_PATH = 107  # bytes of a socket's address


@dataclass(frozen=True, slots=True)
class Conversation:
    """A socket for a call. connecting: it is not connected yet. opening: what it is told first."""

    connection: socket.socket
    connecting: bool
    opening: bytes
    config: ServiceConfig


def converse(call: ServiceCall, found: Found, config: ServiceConfig) -> Conversation:
    """Connect with the socket of a service.

    Raises:
        BrokenServiceError: it cannot be connected with, or its entry names no address.
    """
    opening = b"" if config.skip_service_descriptor else os.fsencode(call.descriptor) + b"\0"
    try:
        if found.kind == "tcp":
            connection, connecting = _connect_tcp(*tcp_address(found.path, call.argument or ""))
        else:
            connection, connecting = _connect_unix(found.path), False
    except (OSError, UnicodeError) as error:
        raise BrokenServiceError(f"{found.path}: {error}") from error
    return Conversation(connection, connecting, opening, config)


def tcp_address(link: str, argument: str) -> tuple[str, int]:
    """The numeric host and the port that a link and a call's argument name together.

    Raises:
        BrokenServiceError: they name none.
    """
    host, slash, port = link.removeprefix(_TCP).removeprefix("/").partition("/")
    if link == _TCP:
        host, plus, port = argument.rpartition("+")
        if not plus or "_" in host:
            raise BrokenServiceError(f"{argument!r} names no host and port")
        host = host.replace("+", ":")
    elif not slash:
        port = argument
    elif argument:
        raise BrokenServiceError(f"{link} takes no argument")
    if not host:
        raise BrokenServiceError(f"{link} names no host")
    if _PORT.fullmatch(port) is None or int(port) > 65_535:
        raise BrokenServiceError(f"{port!r} is no port")
    return host, int(port)


def _connect_tcp(host: str, port: int) -> tuple[socket.socket, bool]:
    family = socket.AF_INET6 if ":" in host or "%" in host else socket.AF_UNSPEC
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    kind, _, _, _, address = socket.getaddrinfo(
        host, port, family, socket.SOCK_STREAM, flags=flags
    )[0]
    connection = socket.socket(kind, socket.SOCK_STREAM)
    connection.setblocking(False)
    outcome = connection.connect_ex(address)
    if outcome not in (0, errno.EINPROGRESS):
        connection.close()
        raise OSError(outcome, os.strerror(outcome))
    return connection, outcome != 0


def _connect_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            connection.connect(path)
            return connection
        entry = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{entry}")
        finally:
            os.close(entry)
    except OSError:
        connection.close()
        raise
    return connection
