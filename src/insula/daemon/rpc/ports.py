"""Who has which of a qube's data ports.

Ports are few. Some are kept for calls in each direction, so that calls waiting on each other cannot
deadlock. A peer may hold no more of one direction's than it leaves free: one alone half of them,
and several still leave some for whoever comes next. Thus neither can callers exhaust a callee, nor
those who are called a caller. Further calls wait in order.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum


class Direction(Enum):
    """Seen from the qube whose ports these are."""

    INCOMING = "incoming"
    OUTGOING = "outgoing"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a port: the other end's domain number, and which way the call goes."""

    direction: Direction
    peer: int


@dataclass(slots=True)
class _Waiter:
    holder: Holder
    given: "asyncio.Future[int]"


class PortPool:
    """The data ports of one running qube, lowest first."""

    def __init__(self, first: int, last: int, *, reserved: int = 6) -> None:
        self._free = set(range(first, last + 1))
        self._held: dict[int, Holder] = {}
        self._waiters: deque[_Waiter] = deque()
        self._most = last - first + 1 - reserved  # in one direction

    def claim(self, port: int, holder: Holder) -> bool:
        """Note a port that is in use already, after the daemon was restarted; whether it can be."""
        if port not in self._free:
            return False
        self._give(port, holder)
        return True

    async def acquire(self, holder: Holder, deadline: float) -> int:
        """A port for holder, waiting behind those that came before, if they may have it.

        Raises:
            TimeoutError: none came free in deadline seconds.
        """
        waiter = _Waiter(holder, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._serve()
        try:
            async with asyncio.timeout(deadline):
                return await waiter.given
        except BaseException:
            if waiter.given.done() and not waiter.given.cancelled():
                self.release(waiter.given.result())
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
                self._serve()  # Those behind may have waited for this one's turn alone.
            raise

    def release(self, port: int) -> None:
        """Give a port back; the next waiter that may have it gets it."""
        if self._held.pop(port, None) is not None:
            self._free.add(port)
            self._serve()

    def in_use(self) -> int:
        """How many ports are held."""
        return len(self._held)

    def _give(self, port: int, holder: Holder) -> None:
        self._free.discard(port)
        self._held[port] = holder

    def _serve(self) -> None:
        for waiter in tuple(self._waiters):
            port = self._pick(waiter.holder)
            if port is None:
                continue
            self._waiters.remove(waiter)
            if not waiter.given.done():
                self._give(port, waiter.holder)
                waiter.given.set_result(port)

    def _pick(self, holder: Holder) -> int | None:
        if not self._free:
            return None
        alike = [one for one in self._held.values() if one.direction is holder.direction]
        if len(alike) >= self._most:
            return None
        # dom0 decides for the person and may use all.
        if holder.peer != 0:
            same = sum(1 for one in alike if one.peer == holder.peer)
            if same + 1 > self._most - len(alike) - 1:
                return None
        return min(self._free)
