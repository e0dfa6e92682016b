"""The fixtures of the commands' tests: the client is what they talk through."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import Live, live
from tests.unit.tools.conftest import daemon, instance

__all__ = ["daemon", "instance"]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """A whole instance that the client finds."""
    with live(tmp_path / "home") as served:
        monkeypatch.setenv("INSULA_RUN", str(served.instance.run))
        monkeypatch.setenv("INSULA_HOME", str(served.instance.home))
        yield served
