"""Our end of a qrexec data connection: input goes to a qube, its output to local sinks.

Bytes are moved as they come, whole frames are never gathered. Nothing here waits: `relay` does,
for any number of connections at once. A connection's other end is a qube's, so that whatever it
sends ends in output, in an exit code or in `lost`.

Source of the format: qrexec-wire.md sections 2 and 7; before it each end sends its nonce.
"""

import os
import select
import stat
import time

from insula.protocol.errors import ProtocolError
from insula.protocol.frames import HEADER, frame, take_raw_frame
from insula.protocol.qrexec import (
    EXIT_LOST,
    MAX_CHUNK_V2,
    MessageType,
    chunk_limit,
    hello,
    read_exit_code,
    session_version,
)
from insula.protocol.resync import MarkerFinder
from insula.qrexec.sinks import Sink

EXIT_BROKEN_PIPE = 141  # as of a program that SIGPIPE ended
_BUFFER = 262_144  # bytes; what a socket holds
_OPENING, _OPENING_POLL = 2.0, 0.005  # seconds
_EXIT_BODY = _HELLO_BODY = 4
_DONE = select.POLLERR | select.POLLHUP | select.POLLNVAL
_NOTHING = Sink()


class DataConnection:
    """One call. descriptor is closed by close(), source (None: no input) stays the caller's.

    nonce: with which each end opens; empty where a connection has had no other use.

    first: input that goes before the source's. code: the exit code, None while the call goes on.
    lost: why the call ended without one of its own. misbehaved: that is because the other end did
    not begin, or did not keep to the protocol.

    patient: output that nobody reads any more is dropped, and output that comes after the exit code
    is still taken.
    """

    def __init__(
        self,
        descriptor: int,
        nonce: bytes,
        *,
        source: int | None = None,
        first: bytes = b"",
        output: Sink = _NOTHING,
        errors: Sink = _NOTHING,
        patient: bool = False,
    ) -> None:
        os.set_blocking(descriptor, False)
        self._connection = descriptor
        # A qube's kernel may learn that the other side of a port is open after we were told.
        is_port = stat.S_ISCHR(os.fstat(descriptor).st_mode)
        self._open_by = time.monotonic() + _OPENING if is_port else 0.0
        self.code: int | None = None
        self.lost: str | None = None
        self.misbehaved = False
        self._patient = patient
        self._told: int | None = None  # the exit code, while output may still come
        self._open = {int(MessageType.DATA_STDOUT), int(MessageType.DATA_STDERR)}
        self._source = source
        self._finder = MarkerFinder(nonce)
        self._greeting = bytearray()
        self._limit = 0  # bytes of a body, known once the other end has said HELLO
        self._sinks: dict[int, Sink] = {
            MessageType.DATA_STDOUT: output,
            MessageType.DATA_STDIN: output,
            MessageType.DATA_STDERR: errors,
        }
        self._output = output
        self._exit_body = bytearray()
        self._kind = 0
        self._left = 0  # bytes of the current body that are still to come, or to be written
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self._busy: Sink | None = None  # a sink that did not take all
        self._outgoing = memoryview(self._opening(nonce, first))

    def _opening(self, nonce: bytes, first: bytes) -> bytes:
        """Everything that need not wait for the other end; any version takes such small bodies."""
        bodies = [first[at : at + MAX_CHUNK_V2] for at in range(0, len(first), MAX_CHUNK_V2)]
        if self._source is None:
            bodies.append(b"")
        frames = (frame(MessageType.DATA_STDIN, body) for body in bodies)
        return b"".join((nonce, hello(), *frames))

    @property
    def greeted(self) -> bool:
        """Whether the other end has begun."""
        return self._limit > 0

    @property
    def concluding(self) -> bool:
        """Whether the exit code is there, but not the end of all output."""
        return self._told is not None and self.code is None and self._busy is None

    def conclude(self) -> None:
        """Expect no more output."""
        self.code = self._told

    def close(self) -> None:
        """Close the connection."""
        if self._connection >= 0:
            os.close(self._connection)
            self._connection = -1

    def interests(self) -> dict[int, int]:
        """What to poll for. A descriptor that nothing is wanted of is left out: it may hang up."""
        wanted: dict[int, int] = {}
        if self.code is not None:
            return wanted
        if self._busy is not None:
            wanted[self._busy.descriptor] = select.POLLOUT
        events = (select.POLLIN if self._busy is None else 0) | (
            select.POLLOUT if self._outgoing else 0
        )
        if events:
            wanted[self._connection] = events
        if self._source is not None and self.greeted and not self._outgoing:
            wanted[self._source] = select.POLLIN
        return wanted

    def serve(self, ready: dict[int, int]) -> None:
        """Do what can be done now, after a poll."""
        events = ready.get(self._connection, 0)
        if self._outgoing and events & (select.POLLOUT | _DONE):
            self._send()
        if self._source is not None and not self._outgoing and self._source in ready:
            self._read_source()
        try:
            if self._busy is not None and self._busy.descriptor in ready:
                self._busy = None
                self._deliver()
            elif self._busy is None and events & (select.POLLIN | _DONE):
                self._receive()
        except ProtocolError as error:
            self.give_up(f"the qube does not keep to the protocol: {error}")
            self.misbehaved = True

    def give_up(self, why: str) -> None:
        """End the call from this side."""
        if self.code is None:
            self.code, self.lost = EXIT_LOST, why
            self.misbehaved = not self.greeted

    def end_output(self) -> None:
        """End the output, if the other end did not."""
        self._output.end()

    def take_source(self, source: int) -> None:
        """Read input from another descriptor, unless it has ended."""
        if self._source is not None:
            self._source = source

    def _send(self) -> None:
        try:
            sent = os.write(self._connection, self._outgoing)
        except BlockingIOError:
            return
        except OSError:
            # Nobody reads input any more; there may still be output.
            self._source = None
            self._outgoing = memoryview(b"")
            return
        self._outgoing = self._outgoing[sent:]

    def _read_source(self) -> None:
        assert self._source is not None
        try:
            data = os.read(self._source, self._limit)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._source = None
        self._outgoing = memoryview(HEADER.pack(MessageType.DATA_STDIN, len(data)) + data)
        self._send()

    def _receive(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            # A piece of a header: what is left of it is shorter than what was read before it.
            rest = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        try:
            count = os.readv(self._connection, [self._buffer[self._end :]])
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            if time.monotonic() < self._open_by:
                time.sleep(_OPENING_POLL)
                return
            if self._told is not None:
                self.code = self._told
            else:
                self.give_up("the connection ended before the command did")
            return
        self._open_by = 0.0
        self._end += count
        if not self.greeted:
            self._greet()
        self._deliver()

    def _greet(self) -> None:
        """Drop what an older session left behind, and take the other end's HELLO."""
        self._greeting += self._finder.feed(bytes(self._buffer[self._start : self._end]))
        self._start = self._end = 0
        raw = take_raw_frame(self._greeting, _HELLO_BODY)
        if raw is None:
            return
        self._limit = chunk_limit(session_version(raw))
        self._end = len(self._greeting)
        self._buffer[: self._end] = self._greeting
        self._greeting.clear()

    def _deliver(self) -> None:
        """Take frames out of the buffer until it is empty, a sink is busy or the call is over."""
        while self.code is None and self.greeted:
            if not self._left and not self._take_header():
                return
            if self._left and not self._take_body():
                return

    def _take_header(self) -> bool:
        if self._end - self._start < HEADER.size:
            return False
        kind, length = HEADER.unpack_from(self._buffer, self._start)
        if length > self._limit:
            raise ProtocolError(f"body of {length} bytes, the limit is {self._limit}")
        if kind not in self._sinks and kind != MessageType.DATA_EXIT_CODE:
            raise ProtocolError(f"unknown type {kind:#x} on a data channel")
        self._start += HEADER.size
        self._kind, self._left = kind, length
        if not length:
            self._end_of_body()
        return True

    def _take_body(self) -> bool:
        """Pass on what is there of a body; False when more has to come or to be taken first."""
        available = min(self._left, self._end - self._start)
        if not available:
            return False
        data = self._buffer[self._start : self._start + available]
        if self._kind == MessageType.DATA_EXIT_CODE:
            self._exit_body += data[: _EXIT_BODY - len(self._exit_body)]
            taken = available
        else:
            sink = self._sinks[self._kind]
            taken = sink.write(data)
            if sink.broken and sink is self._output and not self._patient:
                # Its reader is gone, as for a local program: the qube's sees the same.
                self.code = EXIT_BROKEN_PIPE
            elif taken < available:
                self._busy = sink
        self._start += taken
        self._left -= taken
        if not self._left and self._kind == MessageType.DATA_EXIT_CODE:
            self._end_of_body()
        return taken == available

    def _end_of_body(self) -> None:
        """An empty body ends its stream; the exit code ends the call."""
        if self._kind != MessageType.DATA_EXIT_CODE:
            self._sinks[self._kind].end()
            ended = self._kind == MessageType.DATA_STDERR
            self._open.discard(MessageType.DATA_STDERR if ended else MessageType.DATA_STDOUT)
        elif self._told is None:
            self._told = read_exit_code(bytes(self._exit_body))
            self._end_input()
        if self._told is not None and not (self._patient and self._open):
            self.code = self._told

    def _end_input(self) -> None:
        """The command reads no more."""
        if self._source is not None:
            self._source = None
            self._outgoing = memoryview(bytes(self._outgoing) + frame(MessageType.DATA_STDIN))
            self._send()
