"""One request to the daemon's socket of local programs, with descriptors both ways."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from insula.client import instance
from insula.protocol import local
from insula.protocol.errors import ReportableError

_MAX_DESCRIPTORS = 4


class LocalError(ReportableError):
    """The daemon refused a request; name is its exception's, as the Admin API has them."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class DaemonNotRunningError(ReportableError):
    """Nothing answers at the instance's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the daemon does not answer at {path}")
        self.hint = "Start it with: insula up"


class LocalRequest:
    """A connection with one request; closing it says that the caller is done.

    fields: the answer. descriptors: what came with it, the caller's to close.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fields: dict[str, Any] = {}
        self.descriptors: list[int] = []

    def ask(
        self, op: str, fields: dict[str, Any], given: Sequence[int] = (), *, timeout: float | None
    ) -> Self:
        """Send a request and take its answer; timeout in seconds, None for none.

        Raises:
            DaemonNotRunningError: nobody listens.
            LocalError: the daemon refused.
        """
        path = instance.run() / local.SOCKET_NAME
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise DaemonNotRunningError(path) from None
        try:
            socket.send_fds(self._socket, [local.encode({"op": op, **fields})], list(given))
            received, self.descriptors, _, _ = socket.recv_fds(
                self._socket, local.MAX_RECORD, _MAX_DESCRIPTORS
            )
        except TimeoutError:
            self.close()
            raise LocalError("QubesException", f"{op}: no answer in {timeout} s") from None
        if not received:
            self.close()
            raise LocalError("QubesException", f"{op}: the daemon ended without an answer")
        self.fields = local.decode(received)
        if "error" in self.fields:
            self.close()
            raise LocalError(str(self.fields["error"]), str(self.fields.get("message", "")))
        return self

    def close(self) -> None:
        """Say that the caller is done; descriptors stay open."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def request(op: str, *, timeout: float = 30.0, **fields: Any) -> dict[str, Any]:
    """Ask and close; for requests without descriptors."""
    with LocalRequest() as asked:
        asked.ask(op, fields, timeout=timeout)
        for descriptor in asked.descriptors:
            os.close(descriptor)
        return asked.fields
