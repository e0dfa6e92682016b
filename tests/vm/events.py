"""Listening to an instance's events for the length of a block."""

import socket
import time
from types import TracebackType
from typing import Self

from insula.protocol import admin
from insula.protocol.admin import Event
from tests.vm.instance import Instance

TIMEOUT = 60.0


class Listener:
    """All events from the block's beginning on."""

    def __init__(self, instance: Instance) -> None:
        self._path = instance.run / "qubesd.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._received = bytearray()
        self.seen: list[Event] = []

    def __enter__(self) -> Self:
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(str(self._path))
        self._socket.sendall(admin.encode_request("admin.Events", "", "dom0"))
        self._socket.shutdown(socket.SHUT_WR)
        self.wait("", "connection-established")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def wait(self, subject: str, name: str, **fields: str) -> Event:
        """The next event of that subject, name and fields.

        Raises:
            TimeoutError: none came in time.
        """
        deadline = time.monotonic() + TIMEOUT
        while True:
            event = self._next(deadline)
            self.seen.append(event)
            if (event.subject, event.name) == (
                subject,
                name,
            ) and fields.items() <= event.fields.items():
                return event

    def _next(self, deadline: float) -> Event:
        while True:
            taken = admin.take_event(self._received)
            if isinstance(taken, Event):
                return taken
            assert taken is None, taken
            if time.monotonic() > deadline:
                raise TimeoutError([f"{one.subject} {one.name}" for one in self.seen])
            data = self._socket.recv(65_536)
            if not data:
                raise EOFError("the daemon ended the stream")
            self._received += data
