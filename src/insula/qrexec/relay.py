"""Serving data connections until each call has its exit code."""

import select
import time
from collections.abc import Sequence

from insula.qrexec.data_connection import DataConnection

HANDSHAKE_TIMEOUT = 120.0  # seconds; a qube's agent may wait for its session before it connects
_SILENCE = 2.0  # seconds after an exit code in which output that was not ended may still come


def relay(
    connections: Sequence[DataConnection], *, handshake_timeout: float = HANDSHAKE_TIMEOUT
) -> None:
    """Serve connections until each has its code.

    A qube that does not begin within handshake_timeout seconds is given up; after that a command
    may take as long as it likes.
    """
    poll = _Poll()
    deadline = time.monotonic() + handshake_timeout
    while going := [one for one in connections if one.code is None]:
        timeout = None
        if not all(one.greeted for one in going):
            timeout = max(0.0, deadline - time.monotonic())
        if any(one.concluding for one in going):
            timeout = _SILENCE if timeout is None else min(timeout, _SILENCE)
        ready = poll.wait(going, timeout)
        for one in going:
            one.serve(ready)
            if timeout == 0 and not one.greeted:
                one.give_up(f"nothing came from the qube in {handshake_timeout:g} s")
            elif one.concluding and not ready:
                one.conclude()


class _Poll:
    """A poll object whose descriptors change only where what is wanted of them does."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._registered: dict[int, int] = {}

    def wait(self, connections: Sequence[DataConnection], timeout: float | None) -> dict[int, int]:
        wanted: dict[int, int] = {}
        for one in connections:
            for descriptor, events in one.interests().items():
                wanted[descriptor] = wanted.get(descriptor, 0) | events
        if wanted != self._registered:
            for descriptor in self._registered.keys() - wanted.keys():
                self._poll.unregister(descriptor)
            for descriptor, events in wanted.items():
                self._poll.register(descriptor, events)
            self._registered = wanted
        return dict(self._poll.poll(None if timeout is None else timeout * 1000))
