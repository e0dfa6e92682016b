"""How much of the daemon's time goes to what one qube sends.

A qube that sends without end is heard at the pace at which its share of the time comes in. Until
then nothing is read of it: its own machine holds back what it sends.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.1  # of a processor's time, in the long run
BURST = 0.2  # seconds of it that a qube which was quiet may take at once
SLICE = 0.001  # seconds that are taken before others have their turn


class Pace:
    """The account of one qube."""

    def __init__(self, share: float = SHARE, burst: float = BURST) -> None:
        self._share, self._burst = share, burst
        self._credit, self._counted = burst, time.monotonic()

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Charge what the block takes, which waits for nothing."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self.charge(time.thread_time() - begun)

    def charge(self, seconds: float) -> None:
        """Take so much off the account."""
        now = time.monotonic()
        earned = (now - self._counted) * self._share
        self._credit, self._counted = min(self._burst, self._credit + earned) - seconds, now

    async def rest(self) -> None:
        """Let others have their turn, and wait while the account is overdrawn."""
        self.charge(0)
        await asyncio.sleep(max(0.0, -self._credit / self._share))
