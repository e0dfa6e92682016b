"""Passing bytes both ways between two connections until both directions are over."""

import select
import socket

_BUFFER = 65_536  # bytes of each direction
_READ = select.POLLIN | select.POLLHUP | select.POLLERR


class _Direction:
    """Bytes from one connection to the other."""

    def __init__(self, source: socket.socket, sink: socket.socket, first: bytes) -> None:
        self.source, self.sink = source, sink
        self._held = bytearray(first)
        self._ended = self.over = False

    def reads(self) -> bool:
        return not self._ended and not self._held

    def writes(self) -> bool:
        return bool(self._held)

    def read(self) -> None:
        try:
            self._held += (data := self.source.recv(_BUFFER))
        except BlockingIOError:
            return
        self._ended = not data
        self.end_if_done()

    def write(self) -> None:
        try:
            sent = self.sink.send(self._held)
        except BlockingIOError:
            return
        del self._held[:sent]
        self.end_if_done()

    def end_if_done(self) -> None:
        if self._ended and not self._held and not self.over:
            self.over = True
            self.sink.shutdown(socket.SHUT_WR)


def join(one: socket.socket, other: socket.socket, timeout: float, first: bytes = b"") -> None:
    """Pass bytes, first those that one has already sent.

    timeout: seconds without a byte after which it is over.

    Raises:
        OSError: a connection broke.
    """
    for connection in (one, other):
        connection.setblocking(False)
    forth, back = _Direction(one, other, first), _Direction(other, one, b"")
    poller = select.poll()
    asked: dict[int, int] = {}
    while not (forth.over and back.over):
        for connection, incoming, outgoing in ((one, forth, back), (other, back, forth)):
            wanted = _READ * incoming.reads() | select.POLLOUT * outgoing.writes()
            _ask(poller, asked, connection.fileno(), wanted)
        ready = dict(poller.poll(timeout * 1000))
        if not ready:
            return
        for direction in (forth, back):
            if direction.writes() and ready.get(direction.sink.fileno(), 0):
                direction.write()
            if direction.reads() and ready.get(direction.source.fileno(), 0):
                direction.read()


def _ask(poller: select.poll, asked: dict[int, int], descriptor: int, wanted: int) -> None:
    """Ask for no more than is wanted: an end that was seen would be told again and again."""
    if asked.get(descriptor, 0) == wanted:
        return
    if wanted:
        poller.register(descriptor, wanted)
    else:
        poller.unregister(descriptor)
    asked[descriptor] = wanted
