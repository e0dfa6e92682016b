"""The agent's end of a session start on a window channel; the viewer's is `resync.MarkerFinder`.

Messages of this protocol often end in the byte that begins a marker, so nothing may be held back
until it is sure to be none: the bytes of an unfinished marker go to the old session too, whose
parser may stumble over them. It is over anyway.
"""

from insula.protocol.resync import NONCE_SIZE, WINDOW_PREFIX

_MARKER_SIZE = len(WINDOW_PREFIX) + NONCE_SIZE


class SessionScanner:
    """Finds the newest session start in a stream cut anywhere."""

    def __init__(self) -> None:
        self._tail = b""  # what a marker may have begun in: shorter than a marker

    def feed(self, received: bytes) -> tuple[bytes | None, bytes]:
        """The nonce of a session that began in these bytes, or None; and what belongs to it."""
        rest, nonce = self._tail + received, None
        while 0 <= (at := rest.find(WINDOW_PREFIX)) <= len(rest) - _MARKER_SIZE:
            begin = at + len(WINDOW_PREFIX)
            nonce, rest = rest[begin : at + _MARKER_SIZE], rest[at + _MARKER_SIZE :]
        self._tail = rest[-(_MARKER_SIZE - 1) :]
        return nonce, received if nonce is None else rest
