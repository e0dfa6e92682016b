"""When an answer may be given: a person has to have seen what they answer.

Keys that were meant for another window come in the moment a question appears. So an answer counts
only after the window had the focus for a while, and only of a target that was chosen.
"""

from collections.abc import Sequence

FOCUS_DELAY = 1.0  # seconds


class Decision:
    """What is chosen in one question, and whether it may be said yet. Times are in seconds."""

    def __init__(self, targets: Sequence[str], default: str) -> None:
        self._targets = frozenset(targets)
        self.chosen: str | None = default if default in self._targets else None
        self._focused_at: float | None = None

    def focus(self, now: float) -> None:
        """The window has the focus, from now on."""
        self._focused_at = now

    def unfocus(self) -> None:
        """It has not."""
        self._focused_at = None

    def choose(self, target: str | None) -> None:
        """A target was chosen; anything else is none."""
        self.chosen = target if target in self._targets else None

    def may_answer(self, now: float) -> bool:
        """Whether the choice may be said."""
        return self.chosen is not None and self.ready_in(now) == 0

    def ready_in(self, now: float) -> float | None:
        """Seconds until an answer may be given; None while the window has no focus."""
        if self._focused_at is None:
            return None
        return max(0.0, self._focused_at + FOCUS_DELAY - now)
