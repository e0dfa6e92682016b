"""A service of a qube, called by a program for itself."""

import os
from contextlib import ExitStack
from dataclasses import dataclass

from insula.client import instance
from insula.client.errors import QubesException, QubesVMNotRunningError, ServiceFailedError
from insula.client.local_socket import LocalRequest
from insula.protocol.admin import parse_pairs
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.relay import relay
from insula.qrexec.sinks import Sink

EXIT_LOST = 255
DEFAULT_USER = "DEFAULT"
MAX_OUTPUT = 16 * 1024 * 1024  # bytes


class Kept(Sink):
    """Keeps what comes, up to a limit; beyond it the call ends."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    def write(self, data: memoryview) -> int:
        """Take all of it."""
        self.data += data
        self.broken = len(self.data) > self._limit
        return len(data)


@dataclass(frozen=True, slots=True)
class Completed:
    """A service that has ended. code: its exit code. What it wrote is a qube's: do not trust it."""

    code: int
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        """The output as text; what is not UTF-8 in it is replaced."""
        return self.output.decode("utf-8", "replace")

    def check(self) -> None:
        """Make a failure an error.

        Raises:
            ServiceFailedError: the exit code is not 0.
        """
        if self.code:
            text = f"the service ended with {self.code}"
            raise ServiceFailedError(text, self.code, self.errors)


def run_service(
    target: str,
    service: str,
    payload: bytes = b"",
    *,
    user: str | None = None,
    autostart: bool = True,
    limit: int = MAX_OUTPUT,
) -> Completed:
    """Call a service, with a payload as its input, and wait for its end.

    target: a qube's name, or @dispvm or @dispvm:TEMPLATE for a disposable that is gone afterwards.

    Raises:
        QubesException: the call is refused.
    """
    output, problems = Kept(limit), Kept(limit)
    code = call_service(
        target,
        service,
        payload,
        user=user,
        autostart=autostart,
        output=output,
        errors=problems,
    )
    return Completed(code, bytes(output.data), bytes(problems.data))


def call_service(
    target: str,
    service: str,
    payload: bytes = b"",
    *,
    user: str | None = None,
    autostart: bool = True,
    output: Sink | None = None,
    errors: Sink | None = None,
) -> int:
    """Call a service and wait for its end; returns its exit code.

    Raises:
        QubesException: the call is refused.
    """
    if instance.in_qube():
        from insula.client import remote  # noqa: PLC0415 - most programs run in dom0

        _check_from_qube(target, user, autostart=autostart)
        return remote.call(target, service, payload, output or Sink(), errors or Sink())
    with ExitStack() as closing:
        request = closing.enter_context(LocalRequest())
        fields = {
            "target": target,
            "service": service,
            "user": user or DEFAULT_USER,
            "autostart": autostart,
        }
        request.ask("call", fields, timeout=None)
        connection = DataConnection(
            request.descriptors[0],
            bytes.fromhex(request.fields["nonce"]),
            first=payload,
            output=output or Sink(),
            errors=errors or Sink(),
        )
        for other in request.descriptors[1:]:
            os.close(other)
        closing.callback(connection.close)
        relay([connection])
    code = connection.code
    return EXIT_LOST if code is None or connection.lost else code


def _check_from_qube(target: str, user: str | None, *, autostart: bool) -> None:
    """Whether what is asked for can be called from a qube.

    Raises:
        QubesException: it cannot.
    """
    from insula.client import admin  # noqa: PLC0415 - most programs run in dom0

    if user not in (None, DEFAULT_USER):
        raise QubesException(f"only dom0 can call as {user}")
    if not autostart:
        state = parse_pairs(admin.call(target, "admin.vm.CurrentState").decode(), " ")
        if state.get("power_state") == "Halted":
            raise QubesVMNotRunningError(f"{target} is not running")
