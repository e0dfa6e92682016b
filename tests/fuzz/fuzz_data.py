"""What a qube sends to a command on a data connection, and the name that it gives a file."""

import os
import socket
from contextlib import suppress

from insula.protocol.errors import ProtocolError
from insula.protocol.open_in_vm import NAME_SIZE, decode_name
from insula.protocol.qrexec import hello
from insula.qrexec.data_connection import DataConnection
from insula.qrexec.sinks import Sink

_NONCE = bytes(range(16))
_READY = 0x1 | 0x4  # POLLIN and POLLOUT


class _Counted(Sink):
    """Counts what it is given."""

    count = 0

    def write(self, data: memoryview) -> int:
        self.count += len(data)
        return len(data)


def fuzz(data: bytes) -> None:
    """One input: a session that begins well for three quarters of them, then these bytes."""
    near, far = socket.socketpair()
    output = _Counted()
    connection = DataConnection(near.detach(), _NONCE, output=output, errors=output)
    begins = _NONCE + hello() if data[:1] > b"\x40" else b""
    far.send(begins + data[1:])
    far.close()
    while connection.code is None:
        connection.serve(dict.fromkeys(connection.interests(), _READY))
    connection.close()
    assert output.count < len(data) or not data
    with suppress(ProtocolError):
        name = decode_name(data[:NAME_SIZE].ljust(NAME_SIZE, b"\0")).name
        assert os.sep not in name
        assert name not in ("", ".", "..")
