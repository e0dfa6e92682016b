"""Carrying out a call of a qube that is allowed (qrexec-wire.md section 10.3)."""

import struct
from pathlib import Path
from typing import NamedTuple

from insula.dom0 import local_service, qubesd
from insula.dom0.daemon_socket import DaemonSocket
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.system import is_admin
from insula.protocol.policy.wire import is_new_name
from insula.protocol.qrexec import ExecParameters, MessageType

DISPOSABLE = "@dispvm:"
_UUID = "uuid:"
_PARAMETERS = struct.Struct("<II")
_CONNECT_TIMEOUT = 5.0  # seconds
_MAX_NAME = 63


class NotCarriedOutError(Exception):
    """The call could not be connected."""


class Caller(NamedTuple):
    """The qube that calls: its domain number and name, and by what its agent knows the call."""

    domain: int
    name: str
    request_id: bytes


def carry_out(caller: Caller, called: str, answer: Answer, directory: Path) -> int:
    """Connect a call, and serve it where it is dom0's; the exit status of this process.

    Raises:
        NotCarriedOutError, OSError, ProtocolError: it cannot be connected.
    """
    service = answer.service or called
    service = service if "+" in service else f"{service}+"
    source = answer.source or caller.name
    if is_admin(answer.target) or answer.target == "@adminvm":
        return to_dom0(caller._replace(name=source), service, answer.requested, directory)
    command = f"{answer.user}:QUBESRPC {service} {source}"
    target = answer.uuid or answer.target
    if not target.startswith(DISPOSABLE):
        connect(caller, command, target, directory, autostart=answer.autostart).close()
        return 0
    if not answer.autostart:
        raise NotCarriedOutError("a disposable is always started, which is not allowed")
    made = new_disposable(target)
    try:
        connection = connect(caller, command, made, directory, autostart=True, fresh=True)
        try:
            connection.wait_closed()
        finally:
            connection.close()
    finally:
        qubesd.call("admin.vm.Kill", made)
    return 0


def to_dom0(
    caller: Caller,
    service: str,
    requested: str,
    directory: Path,
    timeout: float | None = _CONNECT_TIMEOUT,
) -> int:
    """Serve a call of a service of dom0."""
    kind = "keyword" if requested.startswith("@") else "name"
    target = requested.removeprefix("@")
    descriptor = f"{service} {caller.name} {kind} {target}"
    return serve_here(caller, descriptor, directory, timeout)


def serve_here(
    caller: Caller,
    descriptor: str,
    directory: Path,
    timeout: float | None,
    *,
    configured: bool = True,
) -> int:
    """Serve a call with what a descriptor names. configured: as in local_service.serve."""
    connection = DaemonSocket(directory, str(caller.domain))
    try:
        body = _PARAMETERS.pack(0, 0) + caller.request_id
        connection.request(MessageType.SERVICE_CONNECT, body)
        given = connection.answer()
        return local_service.serve(
            given.domain, given.port, descriptor, timeout, configured=configured
        )
    finally:
        connection.close()


def connect(
    caller: Caller,
    command: str,
    target: str,
    directory: Path,
    *,
    autostart: bool,
    fresh: bool = False,
) -> DaemonSocket:
    """Have a qube run a command for a caller; the connection is closed when the call is over."""
    body = ExecParameters(caller.domain, 0, command).encode()
    connection = _reach(target, directory, autostart=autostart, fresh=fresh)
    try:
        connection.request(MessageType.EXEC_CMDLINE, body)
        given = connection.answer()
        source = DaemonSocket(directory, str(caller.domain))
        try:
            parameters = _PARAMETERS.pack(given.domain, given.port)
            source.request(MessageType.SERVICE_CONNECT, parameters + caller.request_id)
        finally:
            source.close()
    except BaseException:
        connection.close()
        raise
    return connection


def _reach(target: str, directory: Path, *, autostart: bool, fresh: bool) -> DaemonSocket:
    """The target's daemon, which is started with it where that is allowed."""
    if not fresh:
        try:
            return DaemonSocket(directory, target)
        except (FileNotFoundError, ConnectionRefusedError):
            if not autostart:
                raise NotCarriedOutError(f"{target} does not run") from None
    start(target)
    return DaemonSocket(directory, target)


def start(target: str) -> None:
    """Have a qube run.

    Raises:
        NotCarriedOutError: it does not.
    """
    try:
        qubesd.call("admin.vm.Start", target)
    except qubesd.QubesdError as error:
        if error.kind != qubesd.NOT_HALTED:
            raise NotCarriedOutError(str(error)) from None


def new_disposable(target: str) -> str:
    """What a disposable is called that was made for a target of @dispvm: and its base.

    Raises:
        NotCarriedOutError: none was made.
    """
    base = target.removeprefix(DISPOSABLE)
    payload = b"uuid" if base.startswith(_UUID) else b""
    try:
        made = qubesd.call("admin.vm.CreateDisposable", base, payload).decode("ascii", "replace")
    except qubesd.QubesdError as error:
        raise NotCarriedOutError(str(error)) from None
    if made.startswith(_UUID) and not is_new_name(made):
        raise NotCarriedOutError(f"a disposable of a strange name: {made!r}")
    if not made or len(made) > _MAX_NAME or "/" in made:
        raise NotCarriedOutError(f"a disposable of a strange name: {made!r}")
    return made
