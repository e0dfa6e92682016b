"""Two X servers, a qube's and a desktop's, joined by the real agent and the real viewer."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.desktop.host import Host
from tests.desktop.joined import Joined, XServer


@pytest.fixture(scope="session")
def desktop() -> Iterator[XServer]:
    """The person's X server, with openbox."""
    with XServer.started("1280x1024x24") as server, server.program("openbox", "--sm-disable"):
        server.wait_for_window_manager()
        yield server


@pytest.fixture(scope="session")
def qube_display() -> Iterator[XServer]:
    """The qube's X server."""
    with XServer.started("1600x1200x24") as server:
        yield server


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """A keeper for jailed viewers. Its directory's name is short: a socket's path has a limit."""
    with (
        tempfile.TemporaryDirectory(prefix="i") as run,
        Host.started(Path(run)) as started,
    ):
        yield started


@pytest.fixture
def joined(host: Host, desktop: XServer, qube_display: XServer, tmp_path: Path) -> Iterator[Joined]:
    """Agent and viewer of a qube named work with the blue label, connected."""
    with ExitStack() as stack:
        yield stack.enter_context(Joined.started(host, desktop, qube_display, tmp_path))
