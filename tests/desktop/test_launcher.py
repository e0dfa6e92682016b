"""The menu in a window, on a real desktop, with real keys and clicks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from insula.launcher.window import TITLE
from insula.menus.pictures import Picture
from insula.menus.store import Kept, Store
from insula.protocol.menus import Application
from insula.tools.demo.screen import Screen
from tests.desktop.joined import XServer, wait_for
from tests.unit.menus.conftest import FILES, XTERM, properties
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, answer, fake_daemon

TIMEOUT = 20.0  # seconds
_GUI = {"guivm": answer("dom0", "vm"), "default_user": answer("user")}
MOUSEPAD = Application("mousepad", "Mousepad", comment="Simple text editor")


@pytest.fixture
def run() -> Iterator[Path]:
    with TemporaryDirectory(prefix="menu-") as name:
        yield Path(name)


@pytest.fixture
def daemon(run: Path) -> Iterator[FakeDaemon]:
    """A template, and qubes of several colours."""
    with fake_daemon(run) as made:
        for name, klass, state, held in (
            ("debian", "TemplateVM", "Halted", properties("black")),
            ("dvm", "AppVM", "Halted", properties("red", template="debian", mould=True)),
            ("net", "AppVM", "Running", properties("red", template="debian", network=True)),
            (
                "web",
                "AppVM",
                "Running",
                properties("green", template="debian", default_dispvm="dvm"),
            ),
            ("vault", "AppVM", "Paused", properties("black", template="debian")),
        ):
            made.add(FakeQube(name, klass, state, properties=held | _GUI))
        store = Store(run / "home" / "menus")
        known = {one.id: one for one in (XTERM, FILES, MOUSEPAD)}
        store.keep("debian", Kept(known, told=True))
        ring = bytes((90, 90, 90, 255)) * 8 + bytes((220, 220, 220, 255)) * 8
        store.keep_picture("debian", "files", Picture(16, 16, ring * 16))
        yield made


@pytest.fixture
def tool(desktop: XServer) -> Callable[..., str]:
    """xdotool on the desktop."""

    def call(*words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env={**os.environ, "DISPLAY": desktop.display},
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        return done.stdout.strip()

    return call


@contextmanager
def menu(
    desktop: XServer, run: Path, tool: Callable[..., str], *words: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """The menu, once it has the focus."""
    with subprocess.Popen(
        [sys.executable, "-m", "insula.launcher", *words],
        env={
            **os.environ, "DISPLAY": desktop.display, "QT_QPA_PLATFORM": "xcb",
            "INSULA_RUN": str(run), "INSULA_HOME": f"{run}/home",
        },
    ) as process:  # fmt: skip
        try:
            wait_for(lambda: _focused(tool) or None, "the menu")
            yield process
        finally:
            process.kill()


def _focused(tool: Callable[..., str]) -> bool:
    found = tool("search", "--onlyvisible", "--name", TITLE)
    return bool(found) and tool("getactivewindow") == found.split("\n")[-1]


def started(daemon: FakeDaemon) -> tuple[str, str]:
    """Where which application was started next."""

    def call() -> tuple[str, str] | None:
        while daemon.calls:
            asked = daemon.calls.pop(0)
            if asked["service"].startswith("qubes.StartApp"):
                return asked["target"], asked["service"].partition("+")[2]
        return None

    return wait_for(call, "an application to be started")


def test_a_search_and_return_start_an_application(
    desktop: XServer, daemon: FakeDaemon, run: Path, tool: Callable[..., str]
) -> None:
    with menu(desktop, run, tool) as process:
        tool("type", "vault xt")
        tool("key", "Return")
        assert started(daemon) == ("vault", "xterm")
        assert process.wait(TIMEOUT) == 0


def test_keys_choose_among_what_is_found(
    desktop: XServer, daemon: FakeDaemon, run: Path, tool: Callable[..., str]
) -> None:
    with menu(desktop, run, tool, "--stay") as process:
        tool("type", "xterm")
        tool("key", "Down", "Down", "Return")
        assert started(daemon) == ("net", "xterm")
        tool("key", "Escape")
        tool("type", "web files")
        tool("key", "ctrl+Return")
        assert started(daemon) == ("@dispvm:dvm", "files")
        tool("key", "Escape")
        assert process.poll() is None
        tool("key", "Escape")
        assert process.wait(TIMEOUT) == 0


def test_a_click_on_a_qube_shows_what_it_has(
    desktop: XServer, daemon: FakeDaemon, run: Path, tool: Callable[..., str]
) -> None:
    daemon.qubes["web"].features["menu-items"] = "mousepad.desktop"
    with menu(desktop, run, tool, "--stay"):
        window = tool("search", "--onlyvisible", "--name", TITLE).split("\n")[-1]
        # dvm, net, then web: labels order the list, and each row is as high as its picture.
        tool(
            "mousemove", "--window", window, "80", str(_row(desktop, tool, "#73d216")), "click", "1"
        )
        if picture := os.environ.get("INSULA_TEST_PICTURE"):
            tool("sleep", "0.5")
            Screen(desktop.display).save(Path(picture))
        tool("key", "Return")
        assert started(daemon) == ("web", "mousepad")


def _row(desktop: XServer, tool: Callable[..., str], colour: str) -> int:
    """Where in the window the first pixel of a colour is, downwards."""
    wanted = int(colour[1:], 16)

    window = tool("search", "--onlyvisible", "--name", TITLE).split("\n")[-1]
    place = desktop.geometry(int(window))

    def row() -> int | None:
        rows = desktop.pixels(place)
        return next((y for y, colours in enumerate(rows) if wanted in colours[:120]), None)

    return wait_for(row, f"something of {colour}")


def test_what_happens_to_qubes_is_seen(
    desktop: XServer, daemon: FakeDaemon, run: Path, tool: Callable[..., str]
) -> None:
    with menu(desktop, run, tool, "--stay"):
        daemon.add(FakeQube("brand-new", properties=properties("green", template="debian") | _GUI))
        count = len(daemon.asked("admin.vm.property.GetAll"))
        wait_for(
            lambda: len(daemon.asked("admin.vm.property.GetAll")) > count or None, "another look"
        )
        tool("sleep", "0.3")
        tool("type", "brand xterm")
        tool("key", "Return")
        assert started(daemon) == ("brand-new", "xterm")


def test_without_a_daemon_it_says_so(desktop: XServer, run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insula.launcher"],
        env={**os.environ, "DISPLAY": desktop.display, "INSULA_RUN": str(run)},
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("insula menu: error: ")
