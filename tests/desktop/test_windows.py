"""Windows of a qube on the desktop, by the real agent and the real viewer."""

import struct
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import xcffib
import xcffib.xproto

from insula.protocol.gui.geometry import Rect
from tests.desktop.application import Application
from tests.desktop.host import BLUE, Host, JailedViewer
from tests.desktop.joined import LASTING, Joined, TopLevel, XServer, inside, ring, wait_for

RED, GREEN = 0xFF0000, 0x00FF00


@pytest.fixture
def application(joined: Joined) -> Any:
    made = Application(joined.qube)
    yield made
    made.connection.disconnect()


def content(shown: TopLevel, border: int = 4) -> Rect:
    return shown.outer.grown(-border)


def settled(
    joined: Joined, title: str, colour: int, border: int = 4, size: tuple[int, int] | None = None
) -> TopLevel:
    """Wait until all inside a window's frame has a colour, and the frame a size; where it is."""

    def look() -> TopLevel | None:
        shown = joined.desktop.framed(title)
        if shown is None or (size is not None and shown.outer[2:] != size):
            return None
        rows = joined.desktop.pixels(shown.outer)
        return shown if inside(rows, border) == {colour} else None

    return wait_for(look, f"{title!r} all in {colour:06x}")


def words_with(server: XServer, window: int, name: str, word: int) -> tuple[int, ...]:
    """Wait until a property of 32-bit items contains a word."""

    def look() -> tuple[int, ...] | None:
        words = server.words(window, name)
        return words if word in words else None

    return wait_for(look, f"{word} in {name}")


def test_a_terminal_appears_in_its_labels_frame(joined: Joined) -> None:
    terminal = ("xterm", "-title", "hello", "-geometry", "60x15", "-bg", "#00ff00", *LASTING)
    with joined.qube.program(*terminal):
        shown = joined.shown("hello")
        assert shown.title == "[work] hello"
        wait_for(
            lambda: GREEN in inside(joined.desktop.pixels(shown.outer), 4), "the terminal's pixels"
        )
        rows = joined.desktop.pixels(shown.outer)
        assert ring(rows, 4) == {BLUE}
        assert joined.desktop.property(shown.frame, "WM_CLASS") == b"work:xterm\0work:XTerm\0"
        assert joined.desktop.property(shown.frame, "_QUBES_VMNAME") == b"work"
        assert joined.desktop.words(shown.frame, "_QUBES_LABEL_COLOR") == (BLUE,)
        assert joined.desktop.property(shown.frame, "_QUBES_LABEL") == b"\x06"


def test_debians_own_library_serves_the_agent_too(
    host: Host,
    desktop: XServer,
    qube_display: XServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSULA_TEST_AGENT_PYTHON", "/usr/bin/python3")
    with (
        Joined.started(host, desktop, qube_display, tmp_path) as joined,
        joined.qube.program("xterm", "-title", "old", "-bg", "#00ff00", *LASTING),
    ):
        shown = joined.shown("old")
        wait_for(lambda: GREEN in inside(desktop.pixels(shown.outer), 4), "the terminal's pixels")


def test_the_qube_sees_the_contents_place_on_the_desktop(
    joined: Joined, application: Application
) -> None:
    window = application.window(b"place", Rect(0, 0, 300, 200), RED)
    shown = settled(joined, "place", RED)
    wait_for(lambda: joined.qube.geometry(window) == content(shown), "the qube's own place")


def test_what_is_typed_arrives(joined: Joined, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    with joined.qube.program("xterm", "-title", "typing", "-e", f"head -n 1 > {typed}"):
        shown = joined.shown("typing")
        joined.desktop.run("xdotool", "windowfocus", "--sync", str(shown.frame))
        joined.desktop.run("xdotool", "type", "--delay", "5", "Hello, World! 42\n")
        wait_for(typed.exists, "the terminal's program")
        wait_for(lambda: typed.read_text() == "Hello, World! 42\n", "what was typed")


def test_a_german_keyboard_in_the_qube(
    host: Host, desktop: XServer, qube_display: XServer, tmp_path: Path
) -> None:
    (tmp_path / "keyboard-layout").write_text("de++")
    typed = tmp_path / "typed"
    with ExitStack() as stack:
        stack.callback(qube_display.run, "setxkbmap", "us")
        joined = stack.enter_context(Joined.started(host, desktop, qube_display, tmp_path))
        stack.enter_context(
            joined.qube.program("xterm", "-title", "german", "-e", f"head -n 1 > {typed}")
        )
        shown = joined.shown("german")
        desktop.run("xdotool", "windowfocus", "--sync", str(shown.frame))
        # The keys of a US keyboard that carry y and z, with and without Shift, and AltGr with q.
        desktop.run("xdotool", "key", "y", "z", "Y", "Z", "Return")
        wait_for(typed.exists, "the terminal's program")
        wait_for(lambda: typed.read_text() == "zyZY\n", "swapped letters")


def test_buttons_and_motion_arrive_where_they_were_made(
    joined: Joined, application: Application
) -> None:
    application.window(b"pointer", Rect(50, 60, 300, 200), RED)
    shown = settled(joined, "pointer", RED)
    at = content(shown)
    joined.desktop.run("xdotool", "mousemove", str(at.x + 30), str(at.y + 40), "click", "1")
    pressed = application.next(xcffib.xproto.ButtonPressEvent)
    assert (pressed.event_x, pressed.event_y, pressed.detail) == (30, 40, 1)
    application.next(xcffib.xproto.ButtonReleaseEvent)
    joined.desktop.run("xdotool", "mousemove", str(at.x + 100), str(at.y + 110))
    moved = application.next(xcffib.xproto.MotionNotifyEvent)
    assert (moved.event_x, moved.event_y) == (100, 110)


def test_the_frame_is_not_the_qubes_to_click(joined: Joined, application: Application) -> None:
    application.window(b"ring", Rect(50, 60, 300, 200), RED)
    shown = settled(joined, "ring", RED)
    outer = shown.outer
    joined.desktop.run("xdotool", "mousemove", str(outer.x + 1), str(outer.y + 50), "click", "1")
    joined.desktop.run("xdotool", "mousemove", str(outer.x + 54), str(outer.y + 54), "click", "3")
    assert application.next(xcffib.xproto.ButtonPressEvent).detail == 3


def test_resized_on_the_desktop(joined: Joined, application: Application) -> None:
    window = application.window(b"grown", Rect(50, 60, 300, 200), RED)
    shown = settled(joined, "grown", RED)
    joined.desktop.run("xdotool", "windowsize", str(shown.frame), "508", "408")
    wait_for(lambda: joined.qube.geometry(window)[2:] == (500, 400), "the qube's new size")
    shown = settled(joined, "grown", RED, size=(508, 408))
    assert ring(joined.desktop.pixels(shown.outer), 4) == {BLUE}
    wait_for(lambda: joined.qube.geometry(window) == content(shown), "both in the same place")


def test_resized_in_the_qube(joined: Joined, application: Application) -> None:
    window = application.window(b"shrunk", Rect(50, 60, 300, 200), RED)
    settled(joined, "shrunk", RED)
    application.core.ConfigureWindow(window, 12, [150, 120])
    application.connection.flush()
    shown = settled(joined, "shrunk", RED, size=(158, 128))
    assert ring(joined.desktop.pixels(shown.outer), 4) == {BLUE}


def test_a_menu_has_a_ring_that_the_qube_cannot_paint(
    joined: Joined, application: Application
) -> None:
    window = application.window(b"menu", Rect(200, 300, 120, 90), RED, override=True)
    shown = settled(joined, "menu", RED, border=2)
    assert shown.outer == Rect(200, 300, 120, 90)
    assert ring(joined.desktop.pixels(shown.outer), 2) == {BLUE}
    attributes = joined.desktop.core.GetWindowAttributes(shown.frame).reply()
    assert attributes.override_redirect
    joined.desktop.run("xdotool", "mousemove", "201", "350", "click", "1")
    pressed = application.next(xcffib.xproto.ButtonPressEvent)
    assert (pressed.event_x, pressed.event_y) == (1, 50)
    application.core.UnmapWindow(window)
    application.connection.flush()
    wait_for(lambda: joined.desktop.framed("menu") is None, "the menu's end")


def test_a_frameless_window_over_the_whole_screen_gets_a_frame(
    joined: Joined, application: Application
) -> None:
    application.window(b"cover", Rect(0, 0, 1280, 1024), RED, override=True)
    shown = joined.shown("cover")
    attributes = joined.desktop.core.GetWindowAttributes(shown.frame).reply()
    assert not attributes.override_redirect


def test_a_dialog_belongs_to_its_window(joined: Joined, application: Application) -> None:
    parent = application.window(b"parent", Rect(50, 60, 300, 200), RED)
    dialog = application.window(b"dialog", Rect(90, 90, 100, 80), GREEN)
    application.core.UnmapWindow(dialog)
    application.words(dialog, "WM_TRANSIENT_FOR", "WINDOW", parent)
    application.core.MapWindow(dialog)
    application.connection.flush()
    above = settled(joined, "dialog", GREEN)
    below = joined.shown("parent")
    wait_for(
        lambda: joined.desktop.words(above.frame, "WM_TRANSIENT_FOR") == (below.frame,),
        "the dialog's parent",
    )


def test_titles_follow_and_are_sanitised(joined: Joined, application: Application) -> None:
    window = application.window("näive \x1b[31m".encode(), Rect(50, 60, 300, 200), RED)
    assert joined.shown("n__ive").title == "[work] n__ive _[31m"
    application.property(window, "_NET_WM_NAME", "UTF8_STRING", b"[vault] other")
    assert joined.shown("other").title == "[work] [vault] other"


def test_size_hints_leave_room_for_the_frame(joined: Joined, application: Application) -> None:
    window = application.window(b"hints", Rect(50, 60, 304, 204), RED)
    application.words(
        window, "WM_NORMAL_HINTS", "WM_SIZE_HINTS",
        0x150, 0, 0, 0, 0, 104, 64, 0, 0, 10, 20, 0, 0, 0, 0, 4, 4, 0,
    )  # fmt: skip
    shown = joined.shown("hints")
    hints = words_with(joined.desktop, shown.frame, "WM_NORMAL_HINTS", 112)
    assert hints[5:7] == (112, 72)
    assert hints[9:11] == (10, 20)
    assert hints[15:17] == (12, 12)


def test_closing_asks_the_program(joined: Joined, application: Application) -> None:
    window = application.window(b"closing", Rect(50, 60, 300, 200), RED)
    protocols = application.server.atom("WM_DELETE_WINDOW")
    application.words(window, "WM_PROTOCOLS", "ATOM", protocols)
    shown = settled(joined, "closing", RED)
    close(joined.desktop, shown.frame)
    asked = application.next(xcffib.xproto.ClientMessageEvent)
    assert asked.data.data32[0] == protocols
    application.core.DestroyWindow(window)
    application.connection.flush()
    wait_for(lambda: joined.desktop.framed("closing") is None, "the window's end")


def close(desktop: XServer, frame: int) -> None:
    """Ask the window manager to close a window, as a panel does."""
    atom = desktop.atom("_NET_CLOSE_WINDOW")
    event = struct.pack("=BBHII5I", 33, 32, 0, frame, atom, 0, 2, 0, 0, 0)
    desktop.core.SendEvent(False, desktop.root, 0x180000, event)
    desktop.connection.flush()


def test_closing_ends_a_program_that_cannot_be_asked(
    joined: Joined, application: Application
) -> None:
    application.window(b"stubborn", Rect(50, 60, 300, 200), RED)
    shown = settled(joined, "stubborn", RED)
    close(joined.desktop, shown.frame)
    wait_for(lambda: joined.desktop.framed("stubborn") is None, "the window's end")


def test_full_screen_becomes_maximised(joined: Joined, application: Application) -> None:
    window = application.window(b"film", Rect(50, 60, 300, 200), RED)
    shown = settled(joined, "film", RED)
    state = application.server.atom("_NET_WM_STATE_FULLSCREEN")
    event = struct.pack(
        "=BBHII5I", 33, 32, 0, window, application.server.atom("_NET_WM_STATE"), 1, state, 0, 1, 0
    )
    application.core.SendEvent(False, application.server.root, 0x180000, event)
    application.connection.flush()
    maximised = joined.desktop.atom("_NET_WM_STATE_MAXIMIZED_VERT")
    full = joined.desktop.atom("_NET_WM_STATE_FULLSCREEN")
    states = words_with(joined.desktop, shown.frame, "_NET_WM_STATE", maximised)
    assert full not in states
    words_with(application.server, window, "_NET_WM_STATE", state)


def test_windows_come_back_with_a_new_viewer(joined: Joined, application: Application) -> None:
    application.window(b"first", Rect(50, 60, 300, 200), RED)
    application.window(b"second", Rect(250, 260, 100, 80), GREEN)
    settled(joined, "first", RED)
    settled(joined, "second", GREEN)
    joined.viewer.kill()
    wait_for(lambda: joined.desktop.framed("first") is None, "the windows' end")
    status = joined.directory / "gui-agent.status"
    wait_for(lambda: status.read_text() == "started\n", "the agent to notice")
    joined.open_again()
    settled(joined, "first", RED)
    settled(joined, "second", GREEN)


def test_a_window_drawn_while_no_viewer_was_there_is_shown(
    joined: Joined, application: Application
) -> None:
    joined.viewer.kill()
    status = joined.directory / "gui-agent.status"
    wait_for(lambda: status.read_text() == "started\n", "the agent to notice")
    application.window(b"late", Rect(50, 60, 300, 200), RED)
    joined.open_again()
    settled(joined, "late", RED)


def ticks(process: subprocess.Popen[bytes] | JailedViewer) -> tuple[int, int]:
    """How often a process gave up the processor by itself, and was made to."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    counts = [int(line.split()[1]) for line in text.splitlines() if "_ctxt_switches" in line]
    return counts[0], counts[1]


def test_nothing_wakes_an_idle_pair(joined: Joined, application: Application) -> None:
    application.window(b"idle", Rect(50, 60, 300, 200), RED)
    settled(joined, "idle", RED)
    deadline = time.monotonic() + 20
    while True:
        before = ticks(joined.agent), ticks(joined.viewer)
        time.sleep(1.5)  # what is measured, not a wait for something
        if (ticks(joined.agent), ticks(joined.viewer)) == before:
            break
        assert time.monotonic() < deadline, "agent or viewer never come to rest"


def test_the_channels_end_is_the_viewers_end(joined: Joined) -> None:
    joined.agent.kill()
    assert joined.viewer.wait() == 0


def test_a_shifted_key_while_caps_lock_differs(joined: Joined, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    with joined.qube.program("xterm", "-title", "caps", "-e", f"head -n 1 > {typed}"):
        shown = joined.shown("caps")
        joined.qube.run("xdotool", "key", "Caps_Lock")
        joined.desktop.run("xdotool", "windowfocus", "--sync", str(shown.frame))
        joined.desktop.run("xdotool", "key", "a", "B", "exclam", "Return")
        wait_for(typed.exists, "the terminal's program")
        wait_for(lambda: typed.read_text() == "aB!\n", "the case as typed on the desktop")


def test_keys_held_when_the_viewer_dies_are_let_go(
    joined: Joined, application: Application
) -> None:
    application.window(b"held", Rect(50, 60, 300, 200), RED)
    shown = settled(joined, "held", RED)
    joined.desktop.run("xdotool", "windowfocus", "--sync", str(shown.frame))
    joined.desktop.run("xdotool", "keydown", "a")
    try:
        wait_for(lambda: any(keys_down(joined.qube)), "the key in the qube")
        joined.viewer.kill()
        wait_for(lambda: not any(keys_down(joined.qube)), "the key to be let go")
    finally:
        joined.desktop.run("xdotool", "keyup", "a")


def keys_down(server: XServer) -> bytes:
    return bytes(server.core.QueryKeymap().reply().keys)


def test_a_desktop_without_shared_memory_and_with_a_cookie(
    host: Host, qube_display: XServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = bytes([0x3A]) * 16  # colons, which xcffib's own way of passing it would split at
    authority = tmp_path / "authority"
    parts = (b"", b"", b"MIT-MAGIC-COOKIE-1", cookie)
    packed = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    authority.write_bytes(struct.pack(">H", 0xFFFF) + packed)
    monkeypatch.setenv("XAUTHORITY", str(authority))
    options = ("-auth", str(authority), "-extension", "MIT-SHM")
    with (
        XServer.started("1280x1024x24", *options) as desktop,
        Joined.started(host, desktop, qube_display, tmp_path) as joined,
    ):
        application = Application(qube_display)
        application.window(b"slow", Rect(200, 300, 600, 400), RED, override=True)
        shown = settled(joined, "slow", RED, border=2)
        assert ring(desktop.pixels(shown.outer), 2) == {BLUE}
        application.connection.disconnect()
