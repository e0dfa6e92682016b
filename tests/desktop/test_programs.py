"""A real program with a toolkit, in qubes with the real agent: its clipboard, icon and menu."""

import contextlib
import sys
from pathlib import Path

from tests.desktop.fake_daemon import FakeDaemon, FakeQube
from tests.desktop.host import BLUE, Host
from tests.desktop.hostile import shown
from tests.desktop.joined import Joined, XServer, ring, running_agent, wait_for
from tests.desktop.test_session import session
from tests.desktop.test_tray import GREY_IN_BLUE, only, tray_on

PROGRAM = [sys.executable, str(Path(__file__).with_name("qt_program.py"))]
TEXT = "żółw 🐢"


def test_text_goes_from_a_program_of_one_qube_to_one_of_another(
    host: Host, desktop: XServer, qube_display: XServer, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as undo:
        daemon = undo.enter_context(FakeDaemon.serving(host))
        daemon.pastes.add(("work", "vault"))
        other = undo.enter_context(XServer.started("1600x1200x24"))
        typed = tmp_path / "typed"
        output = undo.enter_context(typed.open("wb"))
        for name, display, text, to in (
            ("work", qube_display, TEXT, None),
            ("vault", other, "its own", output),
        ):
            made = daemon.qubes[name] = FakeQube(name)
            directory = tmp_path / name
            directory.mkdir()
            undo.enter_context(running_agent(host, display, directory, made.uuid))
            undo.enter_context(display.program(*PROGRAM, f"of {name}", text, stdout=to))
        undo.enter_context(session(host, desktop))
        source = host.run / "qubes-clipboard.bin.source"
        press_in(desktop, "of work", "ctrl+shift+c")
        wait_for(lambda: source.exists() and source.read_bytes() == b"work", "the copy")
        press_in(desktop, "of vault", "ctrl+shift+v")
        # Typed at once: the text is there before what follows the key.
        desktop.run("xdotool", "key", "ctrl+v")
        wait_for(lambda: typed.read_text().strip().endswith(TEXT), "the text in the other qube")
        assert source.read_bytes() == b""


def press_in(desktop: XServer, title: str, keys: str) -> None:
    """Press keys in a window."""
    frame = shown(desktop, title).frame
    desktop.run("xdotool", "windowactivate", "--sync", str(frame), "key", keys)


def test_a_programs_icon_and_its_menu(joined: Joined, tmp_path: Path) -> None:
    said = tmp_path / "said"
    desktop = joined.desktop
    with (
        said.open("wb") as output,
        tray_on(desktop) as tray,
        joined.qube.program(*PROGRAM, "with an icon", "", stdout=output),
    ):
        joined.shown("with an icon")
        tray.serve()
        at = tray.place()
        wait_for(lambda: only(desktop, at, GREY_IN_BLUE), "the icon's pixels")
        pointer = ("xdotool", "mousemove", str(at.x + 5), str(at.y + 5))
        desktop.run(*pointer, "click", "1")
        wait_for(lambda: "Trigger" in said.read_text(), "the click")
        desktop.run(*pointer, "click", "3")

        def menu() -> int | None:
            for one in set(desktop.core.QueryTree(desktop.root).reply().children):
                if desktop.property(one, "_QUBES_VMNAME") and desktop.viewable(one):
                    return int(one)
            return None

        place = desktop.geometry(wait_for(menu, "the icon's menu"))
        wait_for(lambda: ring(desktop.pixels(place), 2) == {BLUE}, "the menu's ring")
