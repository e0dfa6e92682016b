"""The keeper's event loop: one thread, descriptors and deadlines."""

import heapq
import itertools
import selectors
import sys
import time
import traceback
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
_TRACEBACKS = 100  # of our own bugs that are logged; more would fill a disk
_LONGEST_WAIT = 3600.0


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


Watched = int | _HasDescriptor
Callback = Callable[[], None]


class Loop:
    """Calls back when a descriptor is ready or a time has come. A callback that fails is logged."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._tracebacks = 0

    def watch(self, what: Watched, callback: Callback, events: int = READ) -> None:
        """Call back whenever what is ready, until it is unwatched."""
        if what in self._selector.get_map():
            self._selector.modify(what, events, callback)
        else:
            self._selector.register(what, events, callback)

    def unwatch(self, what: Watched) -> None:
        """No more of it; has to come before it is closed."""
        if what in self._selector.get_map():
            self._selector.unregister(what)

    def after(self, seconds: float, callback: Callback) -> None:
        """Call back once, when seconds have passed."""
        entry = (time.monotonic() + seconds, next(self._order), callback)
        heapq.heappush(self._timers, entry)

    def step(self) -> None:
        """Wait for the next event or deadline and serve what is due."""
        wait = _LONGEST_WAIT
        if self._timers:
            wait = max(0.0, self._timers[0][0] - time.monotonic())
        for key, _ in self._selector.select(min(wait, _LONGEST_WAIT)):
            # An earlier callback may have closed it, and its number may be another's by now.
            if self._selector.get_map().get(key.fd) is key:
                self._call(key.data)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._call(heapq.heappop(self._timers)[2])

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            # Nothing that one process or client brings about may end what holds all others.
            self._tracebacks += 1
            if self._tracebacks <= _TRACEBACKS:
                traceback.print_exc(file=sys.stderr)
