"""The end of what a process wrote."""

import os

from insula.keeper.loop import Loop
from insula.protocol.keeper import LOG_RING

BURST = 1_048_576  # bytes taken of a process within one PERIOD; then it waits for its next
PERIOD = 0.125  # seconds
_CHUNK = 65_536


class Ring:
    """A pipe drained into a bounded buffer; a process that writes much loses the beginning.

    One that floods its pipe is read only so fast, so that it costs the keeper's others nothing.
    """

    def __init__(self, loop: Loop, source: int) -> None:
        self._loop = loop
        self._source = source
        self._kept = bytearray()
        self._left = BURST
        self._pausing = False
        loop.watch(source, self.drain)

    def drain(self) -> None:
        """Take what is there, within this period's bound."""
        while self._source >= 0 and self._left > 0:
            try:
                data = os.read(self._source, min(_CHUNK, self._left))
            except BlockingIOError:
                break
            if not data:
                self._close()
                break
            self._left -= len(data)
            self._kept += data
            del self._kept[:-LOG_RING]
        if self._left < BURST and not self._pausing:
            self._pausing = True
            self._loop.after(PERIOD, self._resume)
        if self._left <= 0 and self._source >= 0:
            self._loop.unwatch(self._source)

    def end(self) -> None:
        """Take what is left after the process's end; nothing more comes."""
        self._left = BURST
        self.drain()
        self._close()

    def text(self) -> str:
        """What is kept; bytes that are no text are replaced."""
        return self._kept.decode(errors="replace")

    def _resume(self) -> None:
        self._pausing = False
        self._left = BURST
        if self._source >= 0:
            self._loop.watch(self._source, self.drain)

    def _close(self) -> None:
        if self._source >= 0:
            self._loop.unwatch(self._source)
            os.close(self._source)
            self._source = -1
