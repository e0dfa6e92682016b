"""Many calls at once from one qube: run inside it, by the agent's own modules.

Each call carries a number as its argument, and its answer has to be that number.
"""

import array
import os
import select
import socket
import sys
import time

sys.path.insert(0, "/usr/lib/insula")
from insula.protocol.frames import HEADER, frame
from insula.protocol.qrexec import AGENT_SOCKET, MessageType, Trigger, hello

_ID = b"SOCKET".ljust(32, b"\0")


def main() -> None:
    """Print how many were answered rightly, and in how many seconds."""
    target, service, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    poll = select.epoll()
    asking: dict[int, tuple[int, socket.socket]] = {}
    answers: dict[int, bytes] = {}
    calls: dict[int, tuple[int, socket.socket, bytes]] = {}
    begun = time.monotonic()
    for number in range(count):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(AGENT_SOCKET)
        connection.sendall(Trigger(target, _ID, f"{service}+{number}").encode())
        asking[connection.fileno()] = (number, connection)
        poll.register(connection, select.EPOLLIN)
    right = 0
    while (asking or calls) and (ready := poll.poll(60, 64)):
        for descriptor, _ in ready:
            if descriptor in asking:
                number, connection = asking.pop(descriptor)
                poll.unregister(descriptor)
                given = array.array("i")
                data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
                for _, _, content in ancillary:
                    given.frombytes(content)
                if not given:
                    connection.close()
                    continue
                nonce = data[8:]
                # The host's side may take a moment to be there.
                os.set_blocking(given[0], True)
                os.write(given[0], nonce + hello() + frame(MessageType.DATA_STDIN))
                os.set_blocking(given[0], False)
                calls[given[0]] = (number, connection, nonce)
                answers[number] = b""
                poll.register(given[0], select.EPOLLIN)
            else:
                number, connection, nonce = calls[descriptor]
                try:
                    data = os.read(descriptor, 65_536)
                except BlockingIOError:
                    continue
                answers[number] += data
                text = answers[number].partition(nonce)[2]
                if not data or (MessageType.DATA_EXIT_CODE, 4) in _messages(text):
                    right += f"{number}\n".encode() in text
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    connection.close()
                    del calls[descriptor], answers[number]
    print(right, round(time.monotonic() - begun, 1))


def _messages(text: bytes) -> list[tuple[int, int]]:
    found = []
    while len(text) >= HEADER.size:
        kind, length = HEADER.unpack_from(text)
        if len(text) < HEADER.size + length:
            break
        found.append((kind, length))
        text = text[HEADER.size + length :]
    return found


main()
