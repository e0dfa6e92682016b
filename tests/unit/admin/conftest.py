"""An instance for each test, with a template and a qube made from it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.serving import Instance, serving


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as made:
        await made.template()
        await made.qube("work")
        made.told.clear()
        yield made
