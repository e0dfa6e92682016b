"""The viewer's end of the socket to the person's session (protocol/viewing.py).

Without a session, or after its end, nothing is told and nothing is asked.
"""

import socket

from insula.protocol.errors import ProtocolError
from insula.protocol.viewing import Record, encode, take

_MAX_UNSENT = 2_000_000  # bytes; a session that leaves so much unread has ended in all but name
_CHUNK = 65_536


class SessionLink:
    """Never waits for the session."""

    def __init__(self, connected: socket.socket | None) -> None:
        self._socket = connected
        self._unsent = bytearray()
        self._received = bytearray()
        if connected is not None:
            connected.setblocking(False)

    @property
    def there(self) -> bool:
        """Whether a session listens."""
        return self._socket is not None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the session."""
        return len(self._unsent)

    def fileno(self) -> int | None:
        """The socket's descriptor; None without a session."""
        return None if self._socket is None else self._socket.fileno()

    def say(self, op: str, raw: bytes = b"", **fields: object) -> None:
        """Queue a record."""
        if self._socket is not None:
            self._unsent += encode(Record({"op": op, **fields}, raw))
            self.flush()
            if len(self._unsent) > _MAX_UNSENT:
                self._over()

    def flush(self) -> None:
        """Write what waits, as far as it goes without waiting."""
        while self._socket is not None and self._unsent:
            try:
                count = self._socket.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self._over()
                return
            del self._unsent[:count]

    def receive(self) -> list[Record]:
        """Read once; all whole records that are there then."""
        out: list[Record] = []
        if self._socket is None:
            return out
        try:
            chunk = self._socket.recv(_CHUNK)
            self._received += chunk
            while (record := take(self._received)) is not None:
                out.append(record)
        except BlockingIOError:
            return out
        except (OSError, ProtocolError):
            chunk = b""
        if not chunk:
            self._over()
        return out

    def _over(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._unsent.clear()
            self._received.clear()
