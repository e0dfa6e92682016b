"""A whole instance, and `insula init` on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import insula.guest
from insula.client import App
from insula.tools import insula as command
from insula.tools.init import gateway
from tests.live import Live, live
from tests.serving import user
from tests.unit.tools.conftest import Done

Init = Callable[..., Done]
SERVICES = Path(insula.guest.__path__[0], "files", "qubes-rpc")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the gateway's /rw/config is: its machine is a process of the test's host."""
    monkeypatch.setattr(gateway, "_DIRECTORY", str(tmp_path / "config"))
    monkeypatch.setattr(gateway, "_USER", user())
    monkeypatch.setenv("QREXEC_SERVICE_PATH", str(SERVICES))
    return tmp_path / "config"


@pytest.fixture
def served(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    assert not config.exists()
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
            code = command.main(["init", *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run
