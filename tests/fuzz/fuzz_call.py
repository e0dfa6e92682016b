"""What a caller sends to a service: it gets every byte of its input, however that is cut."""

import socket
from contextlib import suppress

from insula.protocol.frames import HEADER
from insula.protocol.qrexec import MAX_CHUNK, MessageType, chunk_limit, hello
from insula.protocol.service_config import ServiceConfig
from insula.qrexec.call import Call
from insula.qrexec.conversation import Conversation
from insula.qrexec.loop import Loop
from insula.qrexec.port import SocketPort

_OPENING = b"opening"
_LONGEST = 60_000  # bytes, which a socket takes at once
_INPUT = (MessageType.DATA_STDIN, MessageType.DATA_STDOUT)
_KNOWN = (*_INPUT, MessageType.DATA_STDERR, MessageType.DATA_EXIT_CODE)


def fuzz(data: bytes) -> None:
    """One input: how the service is configured and the rest is cut, then what is sent."""
    how, cut, stream = data[0:1] or b"\0", data[1:3] or b"\1", data[3:_LONGEST]
    config = ServiceConfig(
        exit_on_client_eof=bool(how[0] & 1), exit_on_service_eof=bool(how[0] & 2)
    )
    sent = stream if how[0] & 4 else hello() + _framed(stream)
    size = max(int.from_bytes(cut, "little"), len(sent) // 64, 1)
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    told, heard = _served(pieces, config)
    assert heard == _OPENING + _input_of(sent)
    assert told.startswith(hello())


def _framed(stream: bytes) -> bytes:
    """Messages of which each takes its type and its length from the input."""
    found = b""
    while len(stream) > 1:
        kind, length = _KNOWN[stream[0] % len(_KNOWN)], stream[1] * 32
        body, stream = stream[2 : 2 + length], stream[2 + length :]
        found += HEADER.pack(kind, len(body)) + body
    return found


def _served(pieces: list[bytes], config: ServiceConfig) -> tuple[bytes, bytes]:
    """What the caller and the service hear of a call."""
    loop = Loop()
    port = SocketPort(loop)
    near, far = socket.socketpair()
    its, service = socket.socketpair()

    def over() -> None:
        loop.running = False

    def send() -> None:
        if not loop.running:
            return
        if pieces:
            with suppress(OSError):  # It has hung up, as it may.
                far.sendall(pieces.pop(0))
            loop.soon(send)
        else:
            far.shutdown(socket.SHUT_WR)

    with far, service:
        near.setblocking(False)
        its.setblocking(False)
        call = Call(loop, port, b"", over, sockets=True, closes=True)
        port.use(near.detach())
        call.greet(b"")
        call.start(Conversation(its, False, _OPENING, config))
        loop.soon(send)
        loop.run()
        port.close()
        return _all(far), _all(service)


def _all(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    found = b""
    with suppress(BlockingIOError, ConnectionResetError):
        while more := connection.recv(MAX_CHUNK):
            found += more
    return found


def _input_of(sent: bytes) -> bytes:
    """Read as simply as can be."""
    begins = hello()
    head, version, rest = sent[: HEADER.size], sent[HEADER.size : len(begins)], sent[len(begins) :]
    if head != begins[: HEADER.size] or int.from_bytes(version.ljust(4, b"\0"), "little") < 2:
        return b""
    limit = chunk_limit(int.from_bytes(version, "little"))
    found = b""
    while len(rest) >= HEADER.size:
        kind, length = HEADER.unpack_from(rest)
        body, rest = rest[HEADER.size :][:length], rest[HEADER.size + length :]
        if kind not in _KNOWN or len(body) < length or length > limit:
            break
        if kind in _INPUT and not body:
            break
        found += body if kind in _INPUT else b""
    return found
