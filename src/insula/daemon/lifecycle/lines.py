"""Lines of work: a bounded number is worked on at once, the rest waits in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Line(Generic[T]):
    """One line. tasks: where its tasks are noted, for whoever ends them."""

    def __init__(
        self, at_once: int, work: Callable[[T], Awaitable[None]], tasks: set["asyncio.Task[None]"]
    ) -> None:
        self._at_once, self._work, self._tasks = at_once, work, tasks
        self._waiting: deque[T] = deque()
        self._working = 0

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is worked on."""
        return not self._working

    def put(self, one: T) -> None:
        """Have one worked on, behind those that are there."""
        self._waiting.append(one)
        if self._working < self._at_once:
            self._working += 1
            task = asyncio.create_task(self._serve())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        try:
            while self._waiting:
                await self._work(self._waiting.popleft())
        finally:
            self._working -= 1
