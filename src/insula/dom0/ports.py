"""The data ports of a qube as its daemon gives them out (qrexec-wire.md section 5.3)."""

FIRST = 513
COUNT = 256


class DataPorts:
    """own: the qube's domain number. Daemons of two qubes never choose the same port."""

    def __init__(self, own: int) -> None:
        self._own = own
        self._used: dict[int, int] = {}

    def take(self, peer: int) -> int | None:
        """The lowest port that is free for a connection with a domain; None where none is."""
        first, step = (0, 1) if peer == 0 else (int(peer > self._own), 2)
        for index in range(first, COUNT, step):
            if FIRST + index not in self._used:
                self._used[FIRST + index] = peer
                return FIRST + index
        return None

    def release(self, peer: int, port: int) -> bool:
        """Whether a port was in use for that domain, and is free now."""
        if self._used.get(port) != peer:
            return False
        del self._used[port]
        return True


def is_data_port(port: int) -> bool:
    """Whether a number is one of a data port."""
    return FIRST <= port < FIRST + COUNT
