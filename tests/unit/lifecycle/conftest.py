"""An instance for each test, with a template and a qube made from it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from insula.daemon.model.qube import Qube
from tests.serving import TIMEOUT, Instance, serving


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    """What a test leaves running is ended; it may leave neither tasks nor descriptors."""
    descriptors, tasks = _descriptors(), asyncio.all_tasks()
    async with serving(tmp_path / "home") as made:
        await made.template()
        made.told.clear()
        yield made
        run = made.run
    assert asyncio.all_tasks() - {asyncio.current_task()} <= tasks
    assert _descriptors() <= descriptors, f"descriptors of {run} are left"


@pytest_asyncio.fixture
async def work(instance: Instance) -> Qube:
    made = await instance.qube("work")
    instance.told.clear()
    return made


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that no event announces."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
