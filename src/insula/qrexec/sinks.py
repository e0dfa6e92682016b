"""Where a call's output goes: written as far as the reader takes it, never waiting for it."""

import os
import select
import socket
import stat
from contextlib import suppress

_STDERR = 2
# Every byte that a terminal may act upon becomes an underscore (qrexec-wire.md section 7.9).
HARMLESS = bytes(
    byte if 0x20 <= byte <= 0x7E or byte in b"\a\b\t\n\r" else ord("_") for byte in range(256)
)


def open_missing() -> None:
    """Give standard streams that are closed to nowhere: no connection is to be taken for one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def release(descriptor: int) -> None:
    """Make a descriptor lead to nowhere: a sink that writes to what it led to is to end that."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class Sink:
    """Takes everything and keeps nothing."""

    descriptor = -1  # to wait for when a write did not take all; of no use here
    broken = False  # whether the reader is gone

    def write(self, data: memoryview) -> int:
        """How many of the first bytes were taken; fewer than all when the reader is busy."""
        return len(data)

    def end(self) -> None:
        """No more will come."""


class DescriptorSink(Sink):
    """Writes to a descriptor, which stays the caller's and in the mode it is in.

    Others share a terminal or a pipe: making it non-blocking for them, too, would break them. So a
    pipe or terminal is opened anew; where that is not allowed, it is written in pieces that a
    pipe with room for anything takes whole. table: what each byte becomes. half_close: the other
    side of a socket is to see the end, though others may have the socket, too.
    """

    def __init__(
        self, descriptor: int, *, table: bytes | None = None, half_close: bool = False
    ) -> None:
        self._table = table
        self._half_close = half_close
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        self.descriptor = os.dup(descriptor)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=self.descriptor)
        elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
            self._open_anew()

    def _open_anew(self) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            own = os.open(f"/proc/self/fd/{self.descriptor}", flags)
        except OSError:
            self._poll = select.poll()
            self._poll.register(self.descriptor, select.POLLOUT)
            return
        os.close(self.descriptor)
        self.descriptor = own

    def write(self, data: memoryview) -> int:
        """How many of the first bytes were taken; all of them once the reader is gone."""
        if self.broken or self.descriptor < 0:
            return len(data)
        try:
            return self._write(data if self._table is None else bytes(data).translate(self._table))
        except BlockingIOError:
            return 0
        except OSError:
            self.broken = True
            return len(data)

    def _write(self, data: memoryview | bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if self._poll is None:
            return os.write(self.descriptor, data)
        if not self._poll.poll(0):
            return 0
        return os.write(self.descriptor, data[: select.PIPE_BUF])

    def end(self) -> None:
        """Close our own descriptor."""
        if self.descriptor < 0:
            return
        if self._socket is not None:
            if self._half_close:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
            self._socket.detach()
            self._socket = None
        os.close(self.descriptor)
        self.descriptor = -1
