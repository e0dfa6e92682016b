"""The end of what a process wrote."""

import os

from insula.protocol.keeper import LOG_RING

_READS_AT_ONCE = 4
_CHUNK = 65_536


class Ring:
    """A pipe drained into a bounded buffer; a process that writes much loses the beginning."""

    def __init__(self, source: int) -> None:
        self.source = source
        self._kept = bytearray()

    def drain(self) -> bool:
        """Take what is there, a bounded amount at once; False at the end of the pipe."""
        for _ in range(_READS_AT_ONCE):
            try:
                data = os.read(self.source, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._kept += data
            del self._kept[:-LOG_RING]
        return True

    def text(self) -> str:
        """What is kept; bytes that are no text are replaced."""
        return self._kept.decode(errors="replace")
