"""A whole instance, and `insula apply` on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insula.client import App
from insula.tools import insula
from tests.live import Live, live
from tests.unit.tools.conftest import Done

Apply = Callable[..., Done]


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
def apply(served: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Apply:
    """Run `insula apply` on a description's text."""
    assert served

    def run(text: str, *options: str) -> Done:
        file = tmp_path / "system.toml"
        file.write_text(text)
        code = insula.main(["apply", *options, str(file)])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err.replace(f"{tmp_path}/", ""))

    return run
