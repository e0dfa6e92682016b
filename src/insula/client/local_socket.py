"""One request to the daemon's socket of local programs, with descriptors both ways."""

import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from insula.client import errors, instance
from insula.client.errors import DaemonNotRunningError
from insula.protocol import local
from insula.protocol.admin import Refusal
from insula.protocol.errors import ProtocolError

__all__ = ["DaemonNotRunningError", "LocalRequest", "request"]
_MAX_DESCRIPTORS = 4


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
            QubesException: the daemon refused; what its answer names.
        """
        try:
            record = local.encode({"op": op, **fields})
        except ProtocolError as error:
            self.close()
            raise errors.QubesValueError(str(error)) from None
        path = instance.socket_path(local.SOCKET_NAME)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError:
            self.close()
            raise DaemonNotRunningError(path) from None
        try:
            received = self._exchange(record, given)
            self.fields = local.decode(received) if received else {}
        except TimeoutError:
            self.close()
            text = f"{op}: no answer in {timeout} s"
            raise errors.QubesDaemonCommunicationError(text) from None
        except (OSError, ProtocolError) as error:
            self.close()
            raise errors.QubesDaemonCommunicationError(f"{op}: {error}") from None
        if not received:
            self.close()
            raise errors.QubesDaemonAccessError(f"{op}: the daemon ended without an answer")
        if "error" in self.fields:
            self.close()
            refusal = Refusal(str(self.fields["error"]), str(self.fields.get("message", "")))
            raise errors.from_refusal(refusal)
        return self

    def _exchange(self, record: bytes, given: Sequence[int]) -> bytes:
        socket.send_fds(self._socket, [record], list(given))
        received, self.descriptors, _, _ = socket.recv_fds(
            self._socket, local.MAX_RECORD, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        return received

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


def request(op: str, *, timeout: float | None = 30.0, **fields: Any) -> dict[str, Any]:
    """Ask and close; for requests without descriptors."""
    with LocalRequest() as asked:
        asked.ask(op, fields, timeout=timeout)
        for descriptor in asked.descriptors:
            os.close(descriptor)
        return asked.fields
