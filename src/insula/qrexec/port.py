"""Ports to the host: virtio-serial in a qube, Unix sockets where the agent runs as a process.

A port's other side comes and goes. Reads are edge triggered until they would block; a port whose
other side is closed reads as ended, and costs nothing until it is opened again. The kernel may
learn that the other side was opened only after it got that side's first bytes: a port that was not
seen open yet and reads as ended may not be, and gets a while.
"""

import os
from collections import deque
from collections.abc import Callable

from insula.qrexec.loop import EDGE, HANGUP, READ, WRITE, Loop

VIRTIO_WRITE = 32_768  # bytes; a port takes no more at once
MAX_QUEUED = 262_144  # bytes after which a writer should wait
_READ_SIZE = 65_536
_FULL = 4096  # bytes of one of the kernel's buffers: after a read of as many there may be more
# A port that is closed is always ready: only what changes may wake us.
_CLOSED = READ | WRITE | HANGUP | EDGE
_OPENING = 2.0  # seconds the kernel has to learn that the other side is open


class Port:
    """A byte channel to the host. Callbacks: on_data, on_closed, on_drained."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._descriptor = -1
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._reading = True
        self._seen_open = False
        self._doubted = False
        self._level = False
        self.on_data: Callable[[bytes], None] = lambda _data: None
        self.on_closed: Callable[[], None] = lambda: None
        self.on_drained: Callable[[], None] = lambda: None

    def use(self, descriptor: int) -> None:
        """Serve a non-blocking descriptor."""
        self._descriptor = descriptor
        self._seen_open = False
        self._level = False
        self._loop.add(descriptor, _CLOSED, self._ready)
        self._loop.soon(self._read)

    @property
    def full(self) -> bool:
        """Whether a writer should wait for on_drained."""
        return self._queued >= MAX_QUEUED

    @property
    def empty(self) -> bool:
        """Whether all that was written has been taken by the port."""
        return self._queued == 0

    def write(self, data: bytes) -> bool:
        """Send data, now or when there is room; whether the writer should wait for on_drained."""
        if not self._queue and self._descriptor >= 0 and len(data) <= VIRTIO_WRITE:
            try:  # Most of what is written is taken at once.
                sent = os.write(self._descriptor, data)
            except OSError:
                sent = 0  # Said again, and then dealt with, below.
            if sent == len(data):
                return False
            data = data[sent:]
        if self._descriptor >= 0:
            self._queue.append(memoryview(data))
            self._queued += len(data)
            self._flush()
        return self.full

    def forget_queued(self) -> None:
        """Drop what was not sent: its reader is gone."""
        self._queue.clear()
        self._queued = 0

    def pause(self) -> None:
        """Stop reading, so that the other side has to wait."""
        self._reading = False
        self._arrange(level=False)

    def resume(self) -> None:
        """Read again."""
        if not self._reading:
            self._reading = True
            self._loop.soon(self._read)

    def close(self) -> None:
        """Close it; nothing is called back any more."""
        if (descriptor := self.take()) >= 0:
            os.close(descriptor)

    def take(self) -> int:
        """Its descriptor, which is the caller's from now on; -1 where it has none."""
        descriptor = self._descriptor
        if descriptor >= 0:
            self._loop.drop(descriptor)
            self._descriptor = -1
        self.forget_queued()
        return descriptor

    def _ready(self, events: int) -> None:
        if events == READ and self._level and self._reading:
            self._read_once()  # As in the middle of a call; that way is short.
            return
        if not events & HANGUP:
            self._seen_open = True
        if events & WRITE:
            self._flush()
        if events & (READ | HANGUP):
            self._read()

    def _arrange(self, *, level: bool) -> None:
        """What to be woken by: while data come, not by each time that the port could take some."""
        self._level = level
        if self._descriptor >= 0:
            events = (READ | HANGUP | (WRITE if self._queue else 0)) if level else _CLOSED
            self._loop.change(self._descriptor, events)

    def _read(self) -> None:
        while self._descriptor >= 0 and self._reading:
            try:
                data = os.read(self._descriptor, _READ_SIZE)
            except BlockingIOError:
                self._seen_open = True
                return
            except OSError:
                data = b""
            if not data:
                self._arrange(level=False)
                self._maybe_ended()
                return
            self.on_data(data)
            if self._reading and not self._level:
                self._arrange(level=True)
            if self._level and len(data) < _FULL:
                return  # If there is more, that is what wakes us next.

    def _read_once(self) -> None:
        try:
            data = os.read(self._descriptor, _FULL)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.on_data(data)
            if len(data) < _FULL:
                return  # If there is more, that is what wakes us next.
        self._read()

    def _maybe_ended(self) -> None:
        if self._seen_open:
            self._seen_open = False
            self._ended()
        elif not self._doubted:
            self._doubted = True
            descriptor = self._descriptor
            self._loop.after(_OPENING, lambda: self._settle_doubt(descriptor))

    def _settle_doubt(self, descriptor: int) -> None:
        """The kernel knows by now whether the other side is open: read as if it had been."""
        self._doubted = False
        if descriptor == self._descriptor >= 0:
            self._seen_open = True
            self._read()

    def _ended(self) -> None:
        self.on_closed()

    def _flush(self) -> None:
        was_full = self.full
        while self._queue:
            head = self._queue[0]
            try:
                sent = os.write(self._descriptor, head[:VIRTIO_WRITE])
            except BlockingIOError:
                break
            except OSError:
                self.forget_queued()
                self._maybe_ended()
                return
            self._queued -= sent
            if sent == len(head):
                self._queue.popleft()
            else:
                self._queue[0] = head[sent:]
        if self._level:
            self._arrange(level=True)
        if was_full and not self.full:
            self.on_drained()


class SocketPort(Port):
    """A port that is a connected socket: it is open until it ends, and then is closed."""

    def use(self, descriptor: int) -> None:
        """Serve a non-blocking descriptor."""
        super().use(descriptor)
        self._seen_open = True  # Of a socket's end there is no doubt.

    def _ended(self) -> None:
        super().close()
        self.on_closed()
