"""Questions that wait for the one that is shown; nobody can make a person drown in them."""

from collections import deque
from typing import Generic, TypeVar

MOST_OF_ONE = 4  # questions of one qube, the one that is shown among them
MOST = 16

T = TypeVar("T")


class Waiting(Generic[T]):
    """Questions in their order, one shown at a time."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, T]] = deque()
        self._shown: tuple[str, T] | None = None

    def add(self, source: str, question: T) -> bool:
        """Whether a question of a qube may wait."""
        held = [*self._waiting, *([self._shown] if self._shown is not None else [])]
        if len(held) >= MOST or sum(one == source for one, _ in held) >= MOST_OF_ONE:
            return False
        self._waiting.append((source, question))
        return True

    def next(self) -> T | None:
        """The question to show now; None where none waits or one is shown."""
        if self._shown is not None or not self._waiting:
            return None
        self._shown = self._waiting.popleft()
        return self._shown[1]

    def over(self) -> None:
        """What was shown is answered."""
        self._shown = None

    def drop(self, question: T) -> bool:
        """Forget a question whose asker is gone; whether it was the one shown."""
        if self._shown is not None and self._shown[1] is question:
            return True
        self._waiting = deque(one for one in self._waiting if one[1] is not question)
        return False
