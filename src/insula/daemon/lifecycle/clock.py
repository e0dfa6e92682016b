"""Qubes' clocks after the host slept, or after its own clock was set.

While a host sleeps its monotonic clock stands still; so what lies between that and the wall clock
tells of a sleep as well as of a clock that was set.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from insula.daemon.lifecycle.running import RunningQube
from insula.protocol.errors import ReportableError

LOOK_EVERY = 5.0  # seconds
TOLERATED = 500_000_000  # nanoseconds that a qube's clock may be off

log = logging.getLogger(__name__)


def offset() -> int:
    """Nanoseconds between the monotonic and the wall clock."""
    return time.time_ns() - time.monotonic_ns()


async def watch(
    running: Callable[[], Iterable[RunningQube]],
    *,
    measure: Callable[[], int] = offset,
    look_every: float = LOOK_EVERY,
) -> None:
    """Set the clocks of running qubes whenever the host's has moved; never returns."""
    known = measure()
    while True:
        await asyncio.sleep(look_every)
        now = measure()
        if abs(now - known) <= TOLERATED:
            continue
        known = now
        log.info("the host slept, or its clock was set")
        for qube in running():
            if not qube.paused:  # One that is gets the time when it goes on.
                with suppress(ReportableError):
                    qube.link.set_clock()
