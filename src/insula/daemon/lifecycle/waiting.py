"""Waiting for what has to come to its end, whatever happens to who waits."""

import asyncio
from typing import Any


async def through(task: "asyncio.Future[Any]") -> bool:
    """Wait until a task or a future is done, however; whether we were cancelled meanwhile.

    Cancellation is for the caller to raise again once it has looked at how it ended.
    """
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
