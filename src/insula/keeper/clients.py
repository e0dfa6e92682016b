"""Connections of the keeper's clients: records with descriptors, in both directions bounded."""

import array
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from insula.keeper.loop import READ, WRITE, Loop
from insula.protocol import keeper as wire
from insula.protocol.errors import ProtocolError

MAX_UNSENT = 256  # records; who does not take them is let go of
_PAUSE_AT = 16  # unsent records at which no more is read from the client
_ANCILLARY = socket.CMSG_SPACE(wire.MAX_DESCRIPTORS * array.array("i").itemsize)

# Serves one request: the client, the request, its descriptors.
Serve = Callable[["Client", wire.Request, list[int]], None]


class Client:
    """One connection. Descriptors that came with a request are closed after it was served."""

    def __init__(
        self, loop: Loop, connection: socket.socket, serve: Serve, leave: Callable[["Client"], None]
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._socket = connection
        self._serve = serve
        self._leave = leave
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._arrange()

    @property
    def open(self) -> bool:
        return self._socket.fileno() >= 0

    def send(self, record: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Queue a record and duplicates of descriptors; a client that takes nothing is closed.

        Raises:
            ProtocolError: the record is too long. OSError: no descriptor is left.
        """
        if not self.open:
            return
        encoded = wire.encode(record)
        if len(self._unsent) >= MAX_UNSENT:
            self.close()
            return
        self._unsent.append((encoded, [os.dup(descriptor) for descriptor in descriptors]))
        self._flush()

    def close(self) -> None:
        """Let go of the client and of all that was meant for it."""
        if not self.open:
            return
        self._loop.unwatch(self._socket)
        self._socket.close()
        for _, descriptors in self._unsent:
            _close(descriptors)
        self._unsent.clear()
        self._leave(self)

    def _arrange(self) -> None:
        events = WRITE if self._unsent else 0
        if len(self._unsent) < _PAUSE_AT:
            events |= READ
        self._loop.watch(self._socket, self._ready, events)

    def _ready(self) -> None:
        self._flush()
        if self.open and len(self._unsent) < _PAUSE_AT:
            self._receive()

    def _flush(self) -> None:
        try:
            while self._unsent:
                encoded, descriptors = self._unsent[0]
                ancillary = []
                if descriptors:
                    passed = array.array("i", descriptors)
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]
                self._socket.sendmsg([encoded], ancillary, socket.MSG_NOSIGNAL)
                self._unsent.popleft()
                _close(descriptors)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._arrange()

    def _receive(self) -> None:
        given: list[int] = []
        try:
            record = _read(self._socket, given)
            if record is not None:
                self._serve(self, wire.Request.decode(record), given)
        except (OSError, ProtocolError):
            self.close()
        finally:
            _close(given)


def _read(connection: socket.socket, given: list[int]) -> bytes | None:
    """One record, its descriptors appended to given; None when there is none yet.

    Raises:
        ProtocolError: it was cut. OSError: the client has gone.
    """
    try:
        # One byte more than a record may have, so that a longer one shows.
        record, ancillary, flags, _ = connection.recvmsg(
            wire.MAX_RECORD + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        return None
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received = array.array("i")
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
            given += received
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(record) > wire.MAX_RECORD:
        raise ProtocolError("a record was cut")
    if not record:
        raise ConnectionResetError("the client has gone")
    return record


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
