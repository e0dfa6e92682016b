"""A connection to a message bus, as programs in qubes and in dom0 have it for notices."""

import os
import socket
from typing import Any

from insula.protocol import dbus
from insula.protocol.dbus import Kind, Message
from insula.protocol.errors import ProtocolError

_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_CHUNK = 65_536
_TIMEOUT = 10.0  # seconds in which the bus has to answer what it is told


class Bus:
    """A connection to a message bus."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            OSError, ProtocolError: it cannot be reached.
        """
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_TIMEOUT)
        self.socket.connect(dbus.socket_of(address))
        self.socket.sendall(dbus.authentication(os.getuid()))
        self._received = bytearray()
        self._serial = 0
        while b"\r\n" not in self._received:
            self._receive()
        if not self._received.startswith(b"OK"):
            raise ProtocolError("the bus does not know us")
        del self._received[: self._received.index(b"\r\n") + 2]

    def send(self, message: Message) -> int:
        """Send a message; returns its serial number."""
        self._serial += 1
        self.socket.sendall(message.encode(self._serial))
        return self._serial

    def call(self, member: str, signature: str = "", *body: Any) -> int:
        """Call the bus itself."""
        return self.send(
            Message(
                kind=Kind.CALL, path=_BUS_PATH, interface=_BUS, member=member, destination=_BUS,
                signature=signature, body=body,
            )
        )  # fmt: skip

    def read(self) -> list[Message]:
        """The messages that are whole once more has come.

        Raises:
            OSError, ProtocolError: the connection is over.
        """
        self._receive()
        found = []
        while (message := dbus.take_message(self._received)) is not None:
            found.append(message)
        return found

    def _receive(self) -> None:
        data = self.socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("the bus is gone")
        self._received += data

    def close(self) -> None:
        """End the connection."""
        self.socket.close()
