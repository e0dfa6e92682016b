"""Windows of real qubes: shown in their frames, usable, and there after every fault."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insula.tools.demo import document
from insula.tools.demo.screen import Screen
from tests.desktop.host import BLUE
from tests.desktop.joined import TopLevel, XServer, ring
from tests.vm.instance import Instance, wait_for

RED = 0xCC0000
_WITHOUT_WAITING = "</dev/null >/dev/null 2>&1 & true"


@pytest.fixture(scope="module")
def desktop(instance: Instance) -> Iterator[XServer]:
    """A display with a window manager and the instance's session."""
    with XServer.started("1600x1000x24") as server, server.program("openbox", "--sm-disable"):
        server.wait_for_window_manager()
        with instance.on_display(server.display):
            session = instance.start("insula", "session")
            try:
                yield server
            finally:
                session.terminate()
                print(session.communicate(timeout=30)[1].decode())


@pytest.fixture(scope="module")
def qube(instance: Instance) -> Iterator[str]:
    """An app qube that runs."""
    name = f"shown{os.getpid()}"  # viewers are told apart by their qubes' names
    instance.say("qvm-create", "--label", "blue", name)
    instance.say("qvm-start", name)
    yield name
    instance.say("qvm-kill", name)
    instance.say("qvm-remove", "--force", name)


@pytest.fixture
def terminal(instance: Instance, desktop: XServer, qube: str) -> Iterator[str]:
    """The title of a terminal in the qube."""
    title = "terminal"
    # The shell would have the title say where it is.
    command = f"xterm -T {title} -xrm '*allowTitleOps: false' {_WITHOUT_WAITING}"
    instance.say("qvm-run", "-q", qube, command)
    shown(desktop, title)
    yield title
    instance.command("qvm-run", "-p", qube, "pkill -x xterm")
    wait_for(lambda: desktop.framed(title) is None, "the terminal's end")


def shown(desktop: XServer, title: str) -> TopLevel:
    """Wait for a window."""
    wait_for(lambda: desktop.framed(title), f"a window {title}")
    found = desktop.framed(title)
    assert found is not None
    return found


def type_in(desktop: XServer, window: TopLevel, text: str) -> None:
    desktop.run("xdotool", "windowfocus", "--sync", str(window.frame))
    desktop.run("xdotool", "type", "--delay", "5", text)


def there(instance: Instance, qube: str, path: str) -> Callable[[], bool]:
    """Whether the qube has a file."""
    return lambda: instance.command("qvm-run", "-p", qube, f"test -e {path}").returncode == 0


def viewer(qube: str) -> int | None:
    """The pid of a qube's viewer."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        inside = b"python" in words[0] and b"insula.viewer" in words
        if inside and any(f'"{qube}"'.encode() in word for word in words):
            return int(entry.name)
    return None


def test_a_terminal_is_framed_in_its_labels_colour_and_takes_keys(
    instance: Instance, desktop: XServer, qube: str, terminal: str
) -> None:
    window = shown(desktop, terminal)
    assert window.title == f"[{qube}] {terminal}"
    assert ring(desktop.pixels(window.outer), 4) == {BLUE}
    type_in(desktop, window, "touch /tmp/keys\n")
    wait_for(there(instance, qube, "/tmp/keys"), "what was typed")


def test_a_killed_viewer_comes_back_and_its_qube_is_unharmed(
    instance: Instance, desktop: XServer, qube: str, terminal: str
) -> None:
    before = instance.say("qvm-run", "-p", qube, "pgrep -x xterm")
    first = viewer(qube)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: viewer(qube) not in (None, first), "another viewer")
    window = shown(desktop, terminal)
    type_in(desktop, window, "touch /tmp/again\n")
    wait_for(there(instance, qube, "/tmp/again"), "what was typed")
    assert instance.say("qvm-run", "-p", qube, "pgrep -x xterm") == before


def test_windows_take_keys_while_no_daemon_is_there(
    instance: Instance, desktop: XServer, qube: str, terminal: str
) -> None:
    window = shown(desktop, terminal)
    before = viewer(qube)
    os.kill(instance.status()["pid"], signal.SIGKILL)
    type_in(desktop, window, "touch /tmp/alone\n")
    instance.up()
    wait_for(there(instance, qube, "/tmp/alone"), "what was typed")
    assert viewer(qube) == before


def test_a_document_in_a_disposable_leaves_nothing(
    instance: Instance, desktop: XServer, tmp_path: Path
) -> None:
    instance.say("qvm-create", "--label", "red", "viewers")
    instance.say("qvm-prefs", "viewers", "template_for_dispvms", "True")
    instance.say("qubes-prefs", "default_dispvm", "viewers")
    volumes = set((instance.home / "volumes").iterdir())
    opening = instance.start("qvm-open-in-dvm", "--view-only", str(document.find(tmp_path).path))
    try:
        window = shown(desktop, ".pdf")
        assert window.title.startswith("[disp")
        assert ring(desktop.pixels(window.outer), 4) == {RED}
        name = window.title[1:].partition("]")[0]
        screen = Screen(desktop.display)
        screen.close(screen.first_of(name, 10))
        assert opening.wait(60) == 0
        wait_for(lambda: viewer(name) is None, "the viewer's end")
        listed = ("qvm-ls", "--raw-list")
        wait_for(lambda: name not in instance.say(*listed).split(), "the disposable's end")
        assert set((instance.home / "volumes").iterdir()) == volumes
    finally:
        opening.kill()
        opening.communicate()
        instance.say("qubes-prefs", "--default", "default_dispvm")
        instance.remove("viewers")


def test_no_viewer_is_left_of_a_qube_that_was_killed(
    instance: Instance, desktop: XServer, qube: str, terminal: str
) -> None:
    instance.say("qvm-kill", qube)
    try:
        wait_for(lambda: desktop.framed(terminal) is None, "the window's end")
        wait_for(lambda: viewer(qube) is None, "the viewer's end")
    finally:
        instance.say("qvm-start", qube)
    wait_for(lambda: viewer(qube), "the viewer of the next start")
