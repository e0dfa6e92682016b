"""Calls that programs of the qube ask for: the agent socket (qrexec-wire.md section 6.2)."""

import array
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from insula.protocol.errors import ProtocolError
from insula.protocol.frames import frame, take_raw_frame
from insula.protocol.qrexec import MAX_TRIGGER, MessageType, check_trigger
from insula.qrexec.loop import HANGUP, READ, Loop

_ID_AT = 128  # where in the message the request id lies
_ID_SIZE = 32
_HEAD = _ID_AT + _ID_SIZE
_PREFIX = b"SOCKET"
_MOST_DIGITS = 10
_READ_SIZE = 65_536
_BACKLOG = 4096


class _Asking:
    """A program that asks, and what it said so far; asked: the whole of it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.asked = False


class Requests:
    """Takes what programs ask for to the host, and its answers back.

    send: passes a message on. on_over: told of the key of a call whose program is done with it.
    """

    def __init__(
        self,
        loop: Loop,
        path: Path,
        send: Callable[[bytes], object],
        on_over: Callable[[tuple[int, int]], None],
    ) -> None:
        self._loop, self._send, self._on_over = loop, send, on_over
        self._asking: dict[int, _Asking] = {}
        self._calls: dict[int, tuple[int, int]] = {}
        # Of programs that left before their answer: until then nobody has their numbers.
        self._left: dict[int, socket.socket] = {}
        self._path = path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen(_BACKLOG)
        loop.add(self._listener.fileno(), READ, self._accept)

    def accepted(
        self, request_id: bytes, key: tuple[int, int], answer: bytes, descriptors: Sequence[int]
    ) -> bool:
        """Give a program the answer to its request; whether it is still there to take it.

        key: of the call, of which on_over is told once the program is done.
        """
        number = _number(request_id)
        self._forget(number)
        asking = self._asking.get(number) if number is not None else None
        if number is None or asking is None or not asking.asked or number in self._calls:
            return False
        self._calls[number] = key
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        with suppress(OSError):  # It is gone: the loop sees to that.
            asking.connection.sendmsg([answer], rights if descriptors else [])
        return True

    def refused(self, request_id: bytes) -> None:
        """Let a program know that what it asked for is not to be."""
        number = _number(request_id)
        self._forget(number)
        if number is not None and number in self._asking and number not in self._calls:
            self._drop(number, answered=True)

    def refuse_all(self) -> None:
        """The host does not know of what was asked for any more."""
        for number in tuple(self._left):
            self._forget(number)
        for number, asking in tuple(self._asking.items()):
            if asking.asked and number not in self._calls:
                self._drop(number, answered=True)

    def close(self) -> None:
        """Stop listening."""
        self._loop.drop(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        number = connection.fileno()
        self._asking[number] = _Asking(connection)
        self._loop.add(number, READ | HANGUP, lambda _events: self._take(number))

    def _take(self, number: int) -> None:
        asking = self._asking[number]
        try:
            data = asking.connection.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or asking.asked:
            self._drop(number)
            return
        asking.received += data
        try:
            raw = take_raw_frame(asking.received, MAX_TRIGGER, _check)
            if raw is None:
                return
        except ProtocolError as error:
            print(f"request: {error}", flush=True)
            self._drop(number)
            return
        asking.asked = True
        named = (_PREFIX + b"%d" % number).ljust(_ID_SIZE, b"\0")
        body = raw.body[:_ID_AT] + named + raw.body[_HEAD:]
        self._send(frame(MessageType.TRIGGER_SERVICE4, body))

    def _forget(self, number: int | None) -> None:
        """Let the number of a program that left be another's."""
        if number in self._left:
            self._left.pop(number).close()

    def _drop(self, number: int, *, answered: bool = False) -> None:
        self._loop.drop(number)
        asking = self._asking.pop(number)
        key = self._calls.pop(number, None)
        if asking.asked and key is None and not answered:
            with suppress(OSError):
                asking.connection.shutdown(socket.SHUT_RDWR)
            self._left[number] = asking.connection
        else:
            asking.connection.close()
        if key is not None:
            self._on_over(key)


def _check(kind: int, length: int) -> None:
    if kind != MessageType.TRIGGER_SERVICE4:
        raise ProtocolError(f"type {kind:#x} is no request")
    check_trigger(kind, length)


def _number(request_id: bytes) -> int | None:
    """The descriptor that a request id names."""
    text = request_id.partition(b"\0")[0]
    digits = text.removeprefix(_PREFIX)
    if digits == text or not digits.isdigit() or len(digits) > _MOST_DIGITS:
        return None
    return int(digits)
