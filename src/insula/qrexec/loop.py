"""The agent's event loop: one thread, which nothing wakes for nothing."""

import heapq
import itertools
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR
EDGE = select.EPOLLET
_MOST_AT_ONCE = 64  # descriptors; others that are ready come at the next turn


Timer = tuple[float, int, Callable[[], None]]


class Loop:
    """Calls back for descriptors; a callback may register and drop any descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._events: dict[int, int] = {}
        self._soon: list[Callable[[], None]] = []
        self._later: list[Timer] = []
        self._count = itertools.count()
        self.running = True

    def add(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with the events seen on a descriptor."""
        self._callbacks[descriptor] = callback
        self._events[descriptor] = events
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events; costs nothing when they are the same."""
        if self._events.get(descriptor) != events:
            self._events[descriptor] = events
            self._epoll.modify(descriptor, events)

    def drop(self, descriptor: int) -> None:
        """Forget a descriptor, before it is closed."""
        self._events.pop(descriptor, None)
        if self._callbacks.pop(descriptor, None) is not None:
            with suppress(OSError):
                self._epoll.unregister(descriptor)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back once the present events are dealt with."""
        self._soon.append(callback)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back when seconds have passed, unless what is returned is cancelled."""
        timer = (time.monotonic() + seconds, next(self._count), callback)
        heapq.heappush(self._later, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Do not call back; one whose time has come changes nothing."""
        if timer in self._later:  # Few are, and while there is one each turn takes longer.
            self._later.remove(timer)
            heapq.heapify(self._later)

    def on_exit(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the wait status of a child."""
        pidfd = os.pidfd_open(pid)

        def over(_events: int) -> None:
            self.drop(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(pid, 0)
            callback(status)

        self.add(pidfd, READ, over)

    def run(self) -> None:
        """Serve until running is made false."""
        callbacks, poll = self._callbacks, self._epoll.poll
        while self.running:
            # In the middle of a call nothing but descriptors is waited for; that way is short.
            patience = self._patience() if self._soon or self._later else None
            for descriptor, events in poll(patience, _MOST_AT_ONCE):
                if (callback := callbacks.get(descriptor)) is not None:
                    callback(events)
            if self._soon or self._later:
                self._call_waiting()

    def _call_waiting(self) -> None:
        soon, self._soon = self._soon, []
        while self._later and self._later[0][0] <= time.monotonic():
            soon.append(heapq.heappop(self._later)[2])
        for waiting in soon:
            waiting()

    def _patience(self) -> float | None:
        """Seconds until something has to be done though no event came."""
        if self._soon:
            return 0
        if not self._later:
            return None
        return max(0.0, self._later[0][0] - time.monotonic())
