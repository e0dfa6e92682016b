"""Our end of a data connection: what a qube sends comes out, however it is cut; nothing hangs."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.frames import HEADER, frame
from insula.protocol.qrexec import (
    EXIT_LOST,
    MAX_CHUNK,
    MAX_CHUNK_V2,
    MessageType,
    exit_code,
    hello,
)
from insula.protocol.resync import MAX_STALE
from insula.qrexec.data_connection import EXIT_BROKEN_PIPE, DataConnection
from insula.qrexec.relay import relay
from insula.qrexec.sinks import DescriptorSink, Sink

NONCE = bytes(range(16))
OUT, ERR, IN = MessageType.DATA_STDOUT, MessageType.DATA_STDERR, MessageType.DATA_STDIN
END = frame(OUT) + frame(ERR) + exit_code(0)
OUTPUTS = st.lists(st.tuples(st.sampled_from((OUT, ERR)), st.binary(min_size=1, max_size=300)))


class Kept(Sink):
    """Keeps what it is given; takes at most `room` bytes of each piece."""

    def __init__(self, room: int = MAX_CHUNK) -> None:
        self.content = bytearray()
        self.ended = threading.Event()
        self._room = room
        self._reading, self.descriptor = os.pipe()  # always ready to be written to

    def write(self, data: memoryview) -> int:
        self.content += data[: self._room]
        return min(self._room, len(data))

    def end(self) -> None:
        self.ended.set()

    def close(self) -> None:
        os.close(self._reading)
        os.close(self.descriptor)


class Call:
    """A connection, the qube's end of it, and what came out."""

    def __init__(
        self, near: socket.socket, peer: socket.socket, room: int, **given: object
    ) -> None:
        self.peer, self.output, self.errors = peer, Kept(room), Kept(room)
        self.connection = DataConnection(
            near.detach(),
            NONCE,
            output=self.output,
            errors=self.errors,
            **given,  # type: ignore[arg-type]
        )

    def run(self) -> int | None:
        relay([self.connection], handshake_timeout=20)
        return self.connection.code

    def say(self, sent: bytes) -> int | None:
        """Send and close, from the qube's end; what remains unread is no error."""

        def speak() -> None:
            try:
                self.peer.sendall(sent)
                self.peer.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        with joined(threading.Thread(target=speak)):
            code = self.run()
            self.connection.close()
        return code

    def received(self) -> bytes:
        """All that has been sent to the qube's end so far."""
        self.peer.setblocking(False)
        found = bytearray()
        try:
            while chunk := self.peer.recv(MAX_CHUNK):
                found += chunk
        except BlockingIOError:
            pass
        return bytes(found)


@contextmanager
def joined(thread: threading.Thread) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def a_call(*, room: int = MAX_CHUNK, **given: object) -> Iterator[Call]:
    near, peer = socket.socketpair()
    with peer:
        call = Call(near, peer, room, **given)
        with closing(call.connection), closing(call.output), closing(call.errors):
            yield call


@given(
    outputs=OUTPUTS, code=st.integers(-(2**31), 2**31 - 1), cuts=st.lists(st.integers(1, 99)),
    stale=st.binary(max_size=100), room=st.sampled_from((1, 7, MAX_CHUNK)),
)  # fmt: skip
def test_output_and_exit_code_survive_any_split(
    outputs: list[tuple[MessageType, bytes]], code: int, cuts: list[int], stale: bytes, room: int
) -> None:
    frames = b"".join(frame(kind, body) for kind, body in outputs)
    sent = stale + NONCE + hello() + frames + frame(OUT) + frame(ERR) + exit_code(code)
    with a_call(room=room) as call:
        at = 0
        for cut in (*cuts, len(sent)):
            call.peer.sendall(sent[at : at + cut])
            at = min(at + cut, len(sent))
            while call.connection.code is None and serve_once(call):
                pass
        assert call.connection.code == code
        assert call.output.content == b"".join(body for kind, body in outputs if kind == OUT)
        assert call.errors.content == b"".join(body for kind, body in outputs if kind == ERR)
        assert call.output.ended.is_set()
        assert call.errors.ended.is_set()


def serve_once(call: Call) -> bool:
    """One turn of what can be done at once; whether something could."""
    poll = select.poll()
    wanted = call.connection.interests()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    ready = dict(poll.poll(0))
    call.connection.serve(ready)
    return bool(ready)


@given(untrusted=st.binary(max_size=400))
def test_whatever_a_qube_sends_the_call_ends(untrusted: bytes) -> None:
    with a_call() as call:
        assert call.say(NONCE + hello() + untrusted) is not None


@given(untrusted=st.binary(max_size=400))
def test_without_its_nonce_a_qube_is_not_heard(untrusted: bytes) -> None:
    with a_call() as call:
        assert call.say(untrusted.replace(NONCE, b"")) == EXIT_LOST
        assert call.output.content == b""
        assert call.connection.lost


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        NONCE,
        NONCE + hello(1),
        NONCE + frame(OUT, b"no hello"),
        NONCE + HEADER.pack(MessageType.HELLO, MAX_CHUNK),
        NONCE + hello() + HEADER.pack(OUT, MAX_CHUNK + 1),
        NONCE + hello(2) + HEADER.pack(OUT, MAX_CHUNK_V2 + 1),
        NONCE + hello() + frame(MessageType.EXEC_CMDLINE, b"x"),
        NONCE + hello() + frame(OUT, b"cut")[:-1],
        NONCE + hello() + frame(OUT) + frame(ERR),
    ],
)
def test_a_connection_that_ends_early_or_badly_is_lost(sent: bytes) -> None:
    with a_call() as call:
        assert call.say(sent) == EXIT_LOST
        assert call.connection.lost


def test_a_qube_that_says_nothing_is_given_up() -> None:
    with a_call() as call:
        relay([call.connection], handshake_timeout=0.05)
        assert call.connection.code == EXIT_LOST
        assert "0.05 s" in (call.connection.lost or "")


def test_endless_bytes_of_an_older_session_are_given_up() -> None:
    with a_call() as call:
        assert call.say(bytes(MAX_STALE + 2**20)) == EXIT_LOST


@pytest.mark.parametrize(
    ("body", "code"), [(b"\x07\0\0\0", 7), (b"\x07\0\0\0more", 7), (b"\x07", EXIT_LOST), (b"", 255)]
)
def test_exit_codes_of_other_lengths_are_read_as_qrexec_does(body: bytes, code: int) -> None:
    with a_call() as call:
        assert call.say(NONCE + hello() + frame(MessageType.DATA_EXIT_CODE, body)) == code


def test_a_call_without_input_says_so_at_once() -> None:
    with a_call(first=b"echo\n") as call:
        serve_once(call)
        assert call.received() == NONCE + hello() + frame(IN, b"echo\n") + frame(IN)


def test_long_first_input_is_cut_to_what_every_version_takes() -> None:
    with a_call(first=bytes(MAX_CHUNK_V2 + 1)) as call:
        serve_once(call)
        expected = frame(IN, bytes(MAX_CHUNK_V2)) + frame(IN, b"\0") + frame(IN)
        assert call.received() == NONCE + hello() + expected


@pytest.mark.parametrize(("version", "limit"), [(2, MAX_CHUNK_V2), (4, MAX_CHUNK)])
def test_input_follows_in_frames_of_the_session(version: int, limit: int) -> None:
    reading, writing = os.pipe()
    content = os.urandom(300_000)

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    def consume(call: Call, heard: bytearray, bodies: list[int]) -> None:
        call.peer.sendall(NONCE + hello(version))
        with call.peer.makefile("rb") as stream:
            assert stream.read(len(NONCE + hello())) == NONCE + hello()
            while True:
                kind, length = HEADER.unpack(stream.read(HEADER.size))
                assert kind == IN
                if not length:
                    break
                bodies.append(length)
                heard += stream.read(length)
        call.peer.sendall(END)

    heard, bodies = bytearray(), list[int]()
    with (
        a_call(source=reading) as call,
        joined(threading.Thread(target=feed)),
        joined(threading.Thread(target=consume, args=(call, heard, bodies))),
    ):
        assert call.run() == 0
    os.close(reading)
    assert heard == content
    assert max(bodies) <= limit


def test_input_that_is_still_open_is_ended_by_the_exit_code() -> None:
    reading, writing = os.pipe()
    with a_call(source=reading) as call:
        call.peer.sendall(NONCE + hello() + END)
        assert call.run() == 0
        assert call.received() == NONCE + hello() + frame(IN)
    os.close(reading)
    os.close(writing)


def test_input_that_is_closed_already_ends() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with a_call(source=reading) as call:
        call.peer.sendall(NONCE + hello())
        while IN not in (kinds := kinds_of(call.received())):
            serve_once(call)
        assert kinds[-1] == IN
        call.peer.sendall(END)
        assert call.run() == 0


def kinds_of(sent: bytes) -> list[int]:
    frames, found = sent.removeprefix(NONCE), []
    while frames:
        kind, length = HEADER.unpack_from(frames)
        found.append(kind)
        frames = frames[HEADER.size + length :]
    return found


def test_output_goes_on_when_the_qube_reads_no_more_input() -> None:
    reading, writing = os.pipe()
    with a_call(source=reading) as call:
        call.peer.sendall(NONCE + hello())
        call.peer.shutdown(socket.SHUT_RD)
        os.write(writing, b"unread")
        assert call.say(frame(OUT, b"still said") + END) == 0
        assert call.output.content == b"still said"
    os.close(reading)
    os.close(writing)


def test_nothing_is_read_while_output_is_not_taken() -> None:
    reading, writing = os.pipe()
    near, peer = socket.socketpair()
    with peer, closing(DataConnection(near.detach(), NONCE, output=DescriptorSink(writing))) as one:
        peer.setblocking(False)
        message = NONCE + hello() + frame(OUT, bytes(MAX_CHUNK))
        sent = 0
        try:
            while sent < 16 * 2**20:
                sent += peer.send(message)
                message = frame(OUT, bytes(MAX_CHUNK))
                one.serve(dict.fromkeys(one.interests(), 1))
        except BlockingIOError:
            pass
        assert sent < 4 * 2**20
    os.close(reading)
    os.close(writing)


def test_a_reader_that_leaves_ends_the_call_as_sigpipe_would() -> None:
    reading, writing = os.pipe()
    near, peer = socket.socketpair()
    os.close(reading)
    with peer, closing(DataConnection(near.detach(), NONCE, output=DescriptorSink(writing))) as one:
        peer.sendall(NONCE + hello() + frame(OUT, b"y\n"))
        relay([one], handshake_timeout=20)
        assert one.code == EXIT_BROKEN_PIPE
    os.close(writing)


def test_errors_that_nobody_reads_do_not_end_the_call() -> None:
    reading, writing = os.pipe()
    near, peer = socket.socketpair()
    os.close(reading)
    with peer, closing(DataConnection(near.detach(), NONCE, errors=DescriptorSink(writing))) as one:
        peer.sendall(NONCE + hello() + frame(ERR, b"oops") + frame(ERR, b"again") + END)
        relay([one], handshake_timeout=20)
        assert one.code == 0
    os.close(writing)


def test_several_calls_are_served_together() -> None:
    with a_call() as first, a_call() as second:
        second.peer.sendall(NONCE + hello() + frame(OUT, b"second") + END)

        def later() -> None:
            assert second.output.ended.wait(20)
            first.peer.sendall(NONCE + hello() + frame(OUT, b"first") + exit_code(3))

        with joined(threading.Thread(target=later)):
            relay([first.connection, second.connection], handshake_timeout=20)
        assert (first.connection.code, second.connection.code) == (3, 0)
        assert first.output.content + second.output.content == b"firstsecond"
