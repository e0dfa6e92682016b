"""The socket of a qube's qrexec daemon, seen from its clients (qrexec-wire.md section 5)."""

import socket
from pathlib import Path

from insula.protocol.errors import ProtocolError
from insula.protocol.frames import HEADER, RawFrame, frame
from insula.protocol.qrexec import ExecParameters, MessageType, hello, session_version

DIRECTORY = Path("/var/run/qubes")
SOCKET_VERSION = 3
_MAX_BODY = 65_535
_TIMEOUT = 60.0  # seconds for what a daemon answers at once


class DaemonSocket:
    """One connection, for one request."""

    def __init__(self, directory: Path, qube: str) -> None:
        """Connect and greet.

        Raises:
            OSError: there is no daemon of that qube.
            ProtocolError: it greets otherwise.
        """
        self._asked: MessageType | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_TIMEOUT)
            self._socket.connect(str(directory / f"qrexec.{qube}"))
            if session_version(self._read()) < SOCKET_VERSION:
                raise ProtocolError("a daemon that is too old")
            self._socket.sendall(hello(SOCKET_VERSION))
        except BaseException:
            self._socket.close()
            raise

    def request(self, kind: MessageType, body: bytes) -> None:
        """Send the request."""
        self._asked = kind
        self._socket.sendall(frame(kind, body))

    def answer(self) -> ExecParameters:
        """The qube's domain number, and the port that was given to the request.

        Raises:
            OSError, ProtocolError: the request was not taken.
        """
        raw = self._read()
        if raw.type != self._asked:
            raise ProtocolError(f"an answer of type {raw.type:#x}")
        return ExecParameters.decode(raw.body)

    def wait_closed(self) -> None:
        """Wait until the call is over."""
        self._socket.settimeout(None)
        while self._socket.recv(4096):
            pass

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> RawFrame:
        kind, length = HEADER.unpack(self._exactly(HEADER.size))
        if length > _MAX_BODY:
            raise ProtocolError(f"a message of {length} bytes")
        return RawFrame(kind, self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            data = self._socket.recv(size - len(received))
            if not data:
                raise ProtocolError("the daemon closed the connection")
            received += data
        return received
