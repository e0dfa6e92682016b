"""The byte channel to a viewer that comes and goes: a virtio port, or for tests a unix socket."""

import os
import select
import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_CHUNK = 32_768  # bytes; a virtio port takes no more in one write
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Received(NamedTuple):
    """What came; connected: whether the other side is there; fresh: these are its first bytes."""

    data: bytes
    connected: bool
    fresh: bool


class Channel:
    """Non-blocking; what could not be written yet waits in order.

    Readiness is edge-triggered: a port whose other side is closed is always "ready", and would
    keep a level-triggered loop awake.
    """

    plain = False  # whether each connection is a session, without a marker where it begins

    def __init__(self, poller: select.epoll) -> None:
        self._poller = poller
        self._unsent = bytearray()
        self._fresh = False  # whether nothing was read of this connection
        self._descriptor: int | None = None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the other side."""
        return len(self._unsent)

    def handles(self, descriptor: int) -> bool:
        """Whether an event on descriptor is this channel's."""
        return descriptor == self._descriptor

    def receive(self) -> Received:
        """All that has come, and whether the other side is there after it."""
        received, fresh = bytearray(), self._fresh
        self._fresh = False
        while self._descriptor is not None:
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                return Received(bytes(received), connected=True, fresh=fresh)
            except OSError:
                chunk = b""
            if not chunk:
                self.drop_unsent()
                self._ended()
                break
            received += chunk
        return Received(bytes(received), connected=False, fresh=fresh)

    def send(self, data: bytes) -> None:
        """Write as much as goes without waiting, keep the rest for flush."""
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as it goes without waiting."""
        while self._unsent and self._descriptor is not None:
            try:
                count = os.write(self._descriptor, self._unsent[:_CHUNK])
            except BlockingIOError:
                return
            except OSError:
                self.drop_unsent()  # the end shows when reading
                return
            del self._unsent[:count]

    def hang_up(self) -> None:
        """End a connection to a side that cannot be spoken with, where there are several."""
        self.drop_unsent()
        self._ended()

    def drop_unsent(self) -> None:
        """Forget what was meant for a viewer that is gone."""
        self._unsent.clear()

    def _ended(self) -> None:
        """The other side is gone; it may come back on the same descriptor."""


class Port(Channel):
    """A virtio port: one descriptor for good."""

    def __init__(self, poller: select.epoll, path: str) -> None:
        super().__init__(poller)
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        poller.register(self._descriptor, _EDGES)


class Listener(Channel):
    """A unix socket that serves the newest connection."""

    def __init__(self, poller: select.epoll, path: str, *, plain: bool = False) -> None:
        """plain: a connection is one session from its first byte on, as a vchan is."""
        super().__init__(poller)
        self.plain = plain
        self._connection: socket.socket | None = None
        with suppress(FileNotFoundError):
            Path(path).unlink()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self._listening.setblocking(False)
        poller.register(self._listening, select.EPOLLIN)

    def handles(self, descriptor: int) -> bool:
        return descriptor == self._listening.fileno() or super().handles(descriptor)

    def receive(self) -> Received:
        with suppress(BlockingIOError):
            fresh, _ = self._listening.accept()
            fresh.setblocking(False)
            self.drop_unsent()
            self._ended()
            self._connection, self._descriptor = fresh, fresh.fileno()
            self._fresh = True
            self._poller.register(fresh, _EDGES)
        return super().receive()

    def close(self) -> None:
        """Stop listening."""
        self._ended()
        self._poller.unregister(self._listening)
        self._listening.close()

    def _ended(self) -> None:
        if self._connection is not None:
            self._poller.unregister(self._connection)
            self._connection.close()
            self._connection = self._descriptor = None
