"""The qube's channel: session start, handshake, whole messages in, a bounded queue out.

A plain channel is one session from its first byte to its last, as a vchan is.
"""

import os
import socket

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.handshake import VERSION_SIZE, effective_minor, viewer_answer
from insula.protocol.gui.messages import (
    AgentMessage,
    Destroy,
    ViewerMessage,
    WindowDumpAck,
    encode,
)
from insula.protocol.gui.stream import take_from_agent
from insula.protocol.resync import NONCE_SIZE, WINDOW_PREFIX, MarkerFinder

MAX_UNSENT = 10_000_000  # bytes; beyond, the qube has stopped reading
_SINCE: dict[type, int] = {Destroy: 5, WindowDumpAck: 7}  # minor versions of the protocol
_CHUNK = 65_536  # bytes taken at once, so that a flood leaves time for the desktop's events


class ChannelClosedError(Exception):
    """The qube's end is gone."""


class Channel:
    """Never waits for the qube, in either direction."""

    def __init__(
        self, connected: socket.socket, width: int, height: int, depth: int, *, plain: bool = False
    ) -> None:
        """Begin a session; width, height and depth are the desktop's root window."""
        self._socket = connected
        connected.setblocking(False)
        self._screen = (width, height, depth)
        marker = b"" if plain else WINDOW_PREFIX + os.urandom(NONCE_SIZE)
        self._finder = MarkerFinder(marker)
        self._received = bytearray()
        self._unsent = bytearray(marker)
        self.minor: int | None = None  # of the protocol version; None before the handshake
        self.flush()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the qube."""
        return len(self._unsent)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def receive(self) -> None:
        """Read once.

        Raises:
            ChannelClosedError: the qube's end is gone.
            ProtocolError: no session begins in all that came.
        """
        try:
            chunk = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosedError(str(error)) from error
        if not chunk:
            raise ChannelClosedError("closed by the qube")
        self._received += self._finder.feed(chunk)

    def take(self) -> AgentMessage | None:
        """The next message; None while bytes of it are missing.

        Raises:
            ProtocolError: the agent broke the protocol.
        """
        if self.minor is None:
            if len(self._received) < VERSION_SIZE:
                return None
            minor = effective_minor(bytes(self._received[:VERSION_SIZE]))
            del self._received[:VERSION_SIZE]
            self.minor = minor
            self._queue(viewer_answer(minor, *self._screen))
        return take_from_agent(self._received, self.minor)

    def send(self, message: ViewerMessage) -> None:
        """Queue a message, unless the agent is too old to know it.

        Raises:
            ProtocolError: the qube does not read, and the queue is full.
        """
        if (self.minor or 0) >= _SINCE.get(type(message), 0):
            self._queue(encode(message))

    def _queue(self, data: bytes) -> None:
        if len(self._unsent) + len(data) > MAX_UNSENT:
            raise ProtocolError(f"the qube leaves {len(self._unsent)} bytes unread")
        self._unsent += data

    def flush(self) -> None:
        """Write what waits, as far as it goes without waiting."""
        while self._unsent:
            try:
                count = self._socket.send(self._unsent)
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            del self._unsent[:count]
