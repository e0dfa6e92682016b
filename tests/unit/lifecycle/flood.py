"""python flood.py CONTROL: requests for calls without end on a control port.

Each has a service and a number of its own. Answers are read; after ANNOUNCED of them it says so.
"""

import socket
import struct
import sys
import threading

_HEAD = struct.Struct("<64s64s32s")
_TRIGGER4, _REFUSED = 0x213, 0x203
_BATCH, _ANNOUNCED = 64, 1000


def main() -> None:
    """Flood until ended."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.setblocking(True)
    threading.Thread(target=_hear, args=(control,), daemon=True).start()
    number = 0
    while True:
        control.sendall(b"".join(_trigger(number + one) for one in range(_BATCH)))
        number += _BATCH


def _trigger(number: int) -> bytes:
    head = _HEAD.pack(b"", b"vault", b"SOCKET%d" % number)
    body = head + b"test.Name%d\0" % number
    return struct.pack("<II", _TRIGGER4, len(body)) + body


def _hear(control: socket.socket) -> None:
    received, answered = b"", 0
    while data := control.recv(65_536):
        received += data
        while len(received) >= 8:
            kind, length = struct.unpack_from("<II", received)
            if len(received) < 8 + length:
                break
            received = received[8 + length :]
            answered += kind == _REFUSED
            if answered == _ANNOUNCED:
                print(answered, flush=True)


main()
