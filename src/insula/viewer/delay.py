"""Holding back what the person does, so that its rhythm does not tell who it is (gui.md 7.6)."""

import os
from collections import deque
from collections.abc import Iterator
from typing import Any

from insula.viewer.xlib import xcffib

_X = xcffib.xproto
_AT_ONCE = (_X.ConfigureNotifyEvent, _X.ReparentNotifyEvent, _X.MapNotifyEvent)
_RANDOM = 8  # bytes of a random number


class Delay:
    """Events in their order, each a random time later. Times are seconds of any one clock."""

    def __init__(self, longest: int) -> None:
        """longest: milliseconds; with 0 nothing is held back."""
        self._longest = longest * 1000  # microseconds
        self._held: deque[tuple[float, Any]] = deque()

    @property
    def due(self) -> float | None:
        """When the next one may go; None when there is none."""
        return self._held[0][0] if self._held else None

    def pass_on(self, events: list[Any], now: float) -> list[Any]:
        """Take events; returns those that need not wait."""
        if not self._longest:
            return events
        passed = []
        for event in events:
            if isinstance(event, _AT_ONCE):
                passed.append(event)
            else:
                last = self._held[-1][0] if self._held else now
                least = min(self._longest, max(0, round((last - now) * 1e6)))
                self._held.append((now + _between(least, self._longest) / 1e6, event))
        return passed

    def over(self, now: float) -> Iterator[Any]:
        """Those whose time has come."""
        while self._held and self._held[0][0] <= now:
            yield self._held.popleft()[1]


def _between(least: int, most: int) -> int:
    """A number from least to most, each as likely as the others."""
    count = most - least + 1
    fair = (1 << 8 * _RANDOM) // count * count
    while (drawn := int.from_bytes(os.urandom(_RANDOM), "big")) >= fair:
        pass
    return least + drawn % count
