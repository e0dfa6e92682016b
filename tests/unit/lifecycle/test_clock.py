"""Clocks of qubes are set when the host's has moved, and only then."""

import asyncio
from types import SimpleNamespace
from typing import Any

from insula.daemon.lifecycle.clock import TOLERATED, watch


class Link:
    """Counts how often its qube was told the time."""

    def __init__(self) -> None:
        self.told = 0

    def set_clock(self) -> None:
        self.told += 1


async def _looks(offsets: list[int], qubes: list[Any]) -> None:
    """Watch until all of offsets were measured."""
    left = iter(offsets)
    done = asyncio.Event()

    def measure() -> int:
        try:
            return next(left)
        except StopIteration:
            done.set()
            return offsets[-1]

    task = asyncio.create_task(watch(lambda: qubes, measure=measure, look_every=0))
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()


async def test_a_clock_that_moved_is_passed_on_once() -> None:
    running, paused = Link(), Link()
    qubes = [
        SimpleNamespace(link=running, paused=False),
        SimpleNamespace(link=paused, paused=True),
    ]
    await _looks([0, 0, 5 * TOLERATED, 5 * TOLERATED, 5 * TOLERATED], qubes)
    assert (running.told, paused.told) == (1, 0)


async def test_a_clock_that_is_trimmed_is_left_alone() -> None:
    link = Link()
    await _looks([0, TOLERATED // 2, 0], [SimpleNamespace(link=link, paused=False)])
    assert link.told == 0
