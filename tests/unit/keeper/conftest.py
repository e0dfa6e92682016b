"""A keeper of each test's own."""

from collections.abc import AsyncIterator

import pytest

from tests.keeping import Keeping, keeping


@pytest.fixture
async def keeper() -> AsyncIterator[Keeping]:
    """A keeper; the test fails when it logged a bug of its own."""
    async with keeping() as made:
        yield made
