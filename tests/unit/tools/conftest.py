"""What tests of commands share: a fake daemon, and commands run as functions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.unit.tools.fake_daemon import FakeDaemon, fake_daemon

Main = Callable[[list[str]], int]


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of sockets, with a path short enough for them, and no display."""
    with TemporaryDirectory(prefix="insula-") as run:
        monkeypatch.setenv("INSULA_RUN", run)
        monkeypatch.setenv("INSULA_HOME", f"{run}/home")
        monkeypatch.delenv("DISPLAY", raising=False)
        yield Path(run)


@pytest.fixture
def daemon(instance: Path) -> Iterator[FakeDaemon]:
    """A daemon that knows dom0 alone."""
    with fake_daemon(instance) as daemon:
        yield daemon


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(instance: Path, capfd: pytest.CaptureFixture[str]) -> Run:  # noqa: ARG001
    """Run a command's main function with words, as its process would."""

    def run_it(main: Main, *words: str) -> Done:
        try:
            code = main(list(words))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run_it
