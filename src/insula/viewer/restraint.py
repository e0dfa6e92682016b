"""What a qube may cost: how often it may be wrong, what it may have logged, how fast it acts."""

import sys

from insula.protocol.errors import ProtocolError
from insula.viewer.session_link import SessionLink

_MAX_SUSPICIONS = 10
_MAX_LINES = 200  # of the log, over the life of a viewer


class Log:
    """Lines on standard error, few enough that no qube can flood it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = _MAX_LINES

    def write(self, line: str) -> None:
        """Log a line; whatever in it came from the qube has to be there as its repr."""
        if self._left > 0:
            self._left -= 1
            last = "" if self._left else " (the last line logged)"
            print(f"viewer {self._name}: {line}{last}", file=sys.stderr, flush=True)


class Suspicions:
    """Drops what is suspicious and has the person asked whether the qube is to end.

    After a few the viewer ends in any case: a person who is asked without end does not answer.
    """

    def __init__(self, log: Log, link: SessionLink) -> None:
        self._log = log
        self._link = link
        self._count = 0
        self._waits = False

    @property
    def waits(self) -> bool:
        """Whether the person was asked and did not answer yet."""
        return self._waits and self._link.there

    def go_on(self) -> None:
        """The person wants the qube to go on."""
        self._waits = False

    def note(self, what: str) -> None:
        """A suspicious message was dropped.

        Raises:
            ProtocolError: it was one too many.
        """
        self._count += 1
        self._log.write(f"suspicious message dropped: {what}")
        if self._count >= _MAX_SUSPICIONS:
            raise ProtocolError(f"{self._count} suspicious messages, the last: {what}")
        self._waits = True
        self._link.say("suspicious", what=what)


class Bucket:
    """A rate limit: capacity at once, then rate a second. Times are seconds of any one clock."""

    def __init__(self, capacity: float, rate: float) -> None:
        self._capacity = capacity
        self._rate = rate
        self._level = capacity
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Seconds until one may be taken; 0 when it may now."""
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._level >= 1 else (1 - self._level) / self._rate

    def take(self) -> None:
        """Take one; only after wait said 0."""
        self._level -= 1
