"""A whole instance, and `insula init` on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insula.client import App
from insula.tools import insula
from tests.live import Live, live
from tests.unit.tools.conftest import Done

Init = Callable[..., Done]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    with live(tmp_path / "home") as served:
        monkeypatch.setenv("INSULA_RUN", str(served.instance.run))
        monkeypatch.setenv("INSULA_HOME", str(served.instance.home))
        yield served


@pytest.fixture
def app(served: Live) -> App:
    assert served
    return App()


@pytest.fixture
def init(served: Live, capfd: pytest.CaptureFixture[str]) -> Init:
    """Run `insula init` with words."""
    assert served

    def run(*words: str) -> Done:
        try:
            code = insula.main(["init", *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run
