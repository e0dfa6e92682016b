"""Finding the first byte of a session on a channel that may still deliver an older one's bytes.

A virtio port outlives its connections: what one peer left half-read reaches the next. Each end
therefore opens a session by sending a marker and drops everything it receives up to the other
end's marker. A data port's marker is a nonce that both ends were told; a control or window port's
marker is a fixed prefix and the host's nonce, which the guest repeats.
"""

from insula.protocol.errors import ProtocolError

NONCE_SIZE = 16
# Bytes that no text, JSON or small integer of ours contains, and no end of which is a beginning:
# a reader may look for them anywhere, behind anything. No message to an agent ends in the first
# byte of its prefix (a seed and a nonce do at times, but there more is on its way): none is held
# back for what might follow.
CONTROL_PREFIX = b"\xfd\xff\x00\xfeINSULA-C\xfe\x00\xff\xfe"
WINDOW_PREFIX = b"\x00\xff\xfe\xfdINSULA-W\xfd\xfe\xff\xff"
MARKER_SIZE = len(CONTROL_PREFIX) + NONCE_SIZE
MAX_STALE = 4 * 1024 * 1024  # bytes: all that ring, socket and driver can hold of an older session


class MarkerFinder:
    """Drops bytes up to and including a marker that is known whole; an empty one is there."""

    def __init__(self, marker: bytes) -> None:
        self._marker = marker
        self._pending = bytearray()
        self._dropped = 0
        self.found = not marker

    def feed(self, received: bytes) -> bytes:
        """Return what follows the marker; nothing while it has not come.

        Raises:
            ProtocolError: MAX_STALE bytes came without the marker.
        """
        if self.found:
            return received
        self._pending += received
        at = self._pending.find(self._marker)
        if at >= 0:
            self.found = True
            rest = bytes(self._pending[at + len(self._marker) :])
            self._pending.clear()
            return rest
        keep = len(self._marker) - 1
        excess = len(self._pending) - keep
        if excess > 0:
            del self._pending[:excess]
            self._dropped += excess
        if self._dropped > MAX_STALE:
            raise ProtocolError("no start of a session among the bytes received")
        return b""


class PrefixScanner:
    """The guest's end: passes bytes on until a prefix and a nonce say that a new session begins."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._pending = bytearray()

    def feed(self, received: bytes) -> list[bytes | tuple[bytes]]:
        """Split received into data and session starts.

        Returns a list whose items are data (bytes) or a one-tuple with the nonce of a new session.
        Bytes that may be the beginning of a prefix are held back until the next call.
        """
        self._pending += received
        out: list[bytes | tuple[bytes]] = []
        while True:
            at = self._pending.find(self._prefix)
            if at < 0:
                keep = self._held_back()
                data = bytes(self._pending[: len(self._pending) - keep])
                del self._pending[: len(self._pending) - keep]
                if data:
                    out.append(data)
                return out
            if at:
                out.append(bytes(self._pending[:at]))
                del self._pending[:at]
            end = len(self._prefix) + NONCE_SIZE
            if len(self._pending) < end:
                return out
            out.append((bytes(self._pending[len(self._prefix) : end]),))
            del self._pending[:end]

    def _held_back(self) -> int:
        """How many of the last bytes may begin a prefix."""
        longest = min(len(self._prefix) - 1, len(self._pending))
        for size in range(longest, 0, -1):
            if self._pending.endswith(self._prefix[:size]):
                return size
        return 0
