"""A service in a qube, called by a command for itself."""

from contextlib import ExitStack

from insula.client.data_connection import DataConnection
from insula.client.local_socket import LocalRequest
from insula.client.relay import relay
from insula.client.sinks import Sink

EXIT_LOST = 255


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


def call_service(
    target: str,
    service: str,
    payload: bytes = b"",
    *,
    output: Sink | None = None,
    errors: Sink | None = None,
) -> int:
    """Call a service and wait for its end; returns its exit code.

    Raises:
        QubesException: the call is refused.
    """
    with ExitStack() as closing:
        request = closing.enter_context(LocalRequest())
        fields = {"target": target, "service": service, "user": "DEFAULT", "autostart": True}
        request.ask("call", fields, timeout=None)
        connection = DataConnection(
            request.descriptors[0],
            bytes.fromhex(request.fields["nonce"]),
            first=payload,
            output=output or Sink(),
            errors=errors or Sink(),
        )
        closing.callback(connection.close)
        relay([connection])
    code = connection.code
    return EXIT_LOST if code is None or connection.lost else code
