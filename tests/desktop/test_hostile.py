"""A viewer whose qube does all it can: nothing shows outside frames, and nothing breaks it."""

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.messages import (
    FIXED,
    HEADER,
    AgentMessage,
    Configure,
    Create,
    Crossing,
    Cursor,
    Destroy,
    Dock,
    Focus,
    KeymapNotify,
    KeyPress,
    Map,
    ShmImage,
    Unmap,
    WindowClass,
    WindowDump,
    WindowFlags,
    WindowHints,
    WindowName,
)
from tests.desktop.host import BLUE
from tests.desktop.hostile import RED, Hostile, framed, live, red_region, shown, window
from tests.desktop.joined import XServer, wait_for

NUMBERS = (0, 1, 2, 3, 4, 5, 8, 50, 300, 1279, 1280, 6144, 16384, 16385, 32767, 32768, 65535, 2**31)


def pixels_stay_inside(desktop: XServer) -> bool:
    """Whether every pixel of the qube's lies within the border of one of its frames."""
    desktop.core.GrabServer()
    try:
        frames = framed(desktop)
        rows = desktop.pixels(Rect(0, 0, 1280, 1024))
    finally:
        desktop.core.UngrabServer()
        desktop.connection.flush()
    insides = [rect.grown(-2 if override else -4) for rect, override in frames]
    for y, row in enumerate(rows):
        if RED not in row:
            continue
        spans = [(one.x, one.right) for one in insides if one.y <= y < one.bottom]
        for x, colour in enumerate(row):
            if colour == RED and not any(left <= x < right for left, right in spans):
                return False
    return True


@pytest.fixture(scope="module")
def region() -> int:
    return red_region()


windows = st.integers(1, 4)
numbers = st.sampled_from(NUMBERS)
places = st.one_of(st.integers(-400, 1400), st.sampled_from([-(2**31), -16385, 16385, 2**31 - 1]))
flags = st.integers(0, 9)
messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(Create, windows, places, places, numbers, numbers, numbers, st.integers(0, 1)),
    st.builds(Map, windows, windows, st.integers(0, 1)),
    st.builds(Unmap, windows),
    st.builds(Destroy, windows),
    st.builds(Configure, windows, places, places, numbers, numbers, st.integers(0, 1)),
    st.builds(ShmImage, windows, places, places, numbers, numbers),
    st.builds(WindowName, windows, st.binary(max_size=128)),
    st.builds(WindowClass, windows, st.binary(max_size=64), st.binary(max_size=64)),
    st.builds(WindowHints, windows, st.integers(0, 0x3FF), *[numbers] * 8),
    st.builds(WindowFlags, windows, flags, flags),
    st.builds(Cursor, windows, st.sampled_from([0, 0x100, 0x101, 0x199, 0x19A, 5])),
    st.builds(Dock, windows),
    st.builds(
        WindowDump, windows, st.just(512), st.just(512), st.just(32), st.just(tuple(range(256)))
    ),
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent=st.lists(messages, min_size=5, max_size=60))
def test_any_sequence_is_applied_inside_frames_or_ends_the_viewer(
    desktop: XServer, region: int, sent: list[AgentMessage]
) -> None:
    known: set[int] = set()
    with Hostile.against(desktop, region) as hostile:
        hostile.send(*live(3, 0), *live(4, 1))
        known.update((3, 4))
        for message in sent:
            # Unknown windows end the viewer at once; that has tests of its own.
            if isinstance(message, Create) == (message.window in known):
                continue
            if isinstance(message, Create):
                known.add(message.window)
            if isinstance(message, Destroy):
                known.discard(message.window)
            hostile.send(message)
        for window in known:
            hostile.send(ShmImage(window, 0, 0, 512, 512))
        survived = hostile.settle()
        # A window manager's decoration shows the last pixels until it has gone after its window.
        wait_for(lambda: pixels_stay_inside(desktop), "all pixels of the qube inside its frames")
        code, log = hostile.outcome()
    assert code == (0 if survived else 1), log
    assert not any("Traceback" in line for line in log), log


@settings(max_examples=20, deadline=None)
@given(noise=st.binary(min_size=12, max_size=2000))
def test_malformed_bytes_end_the_viewer_with_one_line(
    desktop: XServer, region: int, noise: bytes
) -> None:
    with Hostile.against(desktop, region) as hostile:
        hostile.send(*live(1, 0))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # A type that does not exist, so that every example is malformed somewhere.
            hostile.channel.sendall(HEADER.pack(150, 1, 0) + noise)
        assert not hostile.settle()
        code, log = hostile.outcome()
    assert code == 1
    assert len(log) == 1
    assert "not an agent's" in log[0]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([Map(7, 0, 0)], "unknown window 7"),
        ([Create(7, 0, 0, 9, 9, 0, 0), Create(7, 0, 0, 9, 9, 0, 0)], "created twice"),
        ([Create(7, 0, 0, 9, 9, 0, 0), Destroy(7), Unmap(7)], "unknown window 7"),
        ([Create(7, 0, 0, 9, 9, 0, 0), WindowDump(7, 1, 1, 32, (16384,))], "page 16384 of 16384"),
        ([Create(number, 0, 0, 9, 9, 0, 0) for number in range(6)], "more than 5 windows"),
        ([Create(7, 0, 0, 9, 9, 0, 0), *[Configure(7, 0, 0, 0, 9, 0)] * 10], "10 suspicious"),
        ([Create(7, 0, 0, 9, 9, 0, 0), *[WindowFlags(7, 1, 1)] * 10], "10 suspicious"),
        ([Create(7, 0, 0, 9, 9, 0, 0), *[Cursor(7, 7)] * 10], "10 suspicious"),
    ],
)
def test_breaking_the_protocol_ends_the_viewer(
    desktop: XServer, region: int, messages: list[AgentMessage], reason: str
) -> None:
    with Hostile.against(desktop, region, windows_count_limit=5) as hostile:
        hostile.send(*messages)
        assert not hostile.settle()
        code, log = hostile.outcome()
    assert code == 1
    assert reason in log[-1]


def test_frames_of_flooding_windows_keep_their_colour(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region) as hostile:
        hostile.send(*live(1, 1))
        shown = wait_for(lambda: framed(desktop), "the window")
        for _ in range(50):
            hostile.send(*[ShmImage(1, 0, 0, 512, 512)] * 200)
        assert hostile.settle()
        at = shown[0][0]
        wait_for(lambda: desktop.pixels(at)[100][100] == RED, "its pixels")
        rows = desktop.pixels(at)
        edge = {colour for row in (*rows[:2], *rows[-2:]) for colour in row}
        assert edge == {BLUE}


def test_every_fixed_message_of_zeros_is_survived_or_refused(desktop: XServer, region: int) -> None:
    for number, (_, layout) in FIXED.items():
        with Hostile.against(desktop, region) as hostile:
            hostile.send(*live(1, 0))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                body = bytes(layout.size)
                hostile.channel.sendall(HEADER.pack(number, 1, layout.size) + body)
            hostile.settle()
            code, log = hostile.outcome()
        assert code in (0, 1), log
        assert not any("Traceback" in line for line in log), log


@pytest.mark.parametrize("had_focus", [False, True])
def test_a_qube_under_the_pointer_does_not_hear_of_keys_held_for_others(
    desktop: XServer, region: int, had_focus: bool
) -> None:
    with Hostile.against(desktop, region) as hostile, desktop.program("xterm", "-name", "trusted"):
        desktop.run("xdotool", "mousemove", "1270", "1020")
        if had_focus:
            hostile.send(*window(2, Rect(500, 500, 300, 200), b"focused"))
            frame = str(shown(desktop, "focused").frame)
            desktop.run("xdotool", "windowactivate", "--sync", frame)
            hostile.received(Focus)
            hostile.send(Destroy(2))
            wait_for(lambda: desktop.framed("focused") is None, "its end")
        hostile.send(*live(1, 1))
        wait_for(lambda: framed(desktop), "the qube's window")
        search = ("xdotool", "search", "--sync", "--onlyvisible", "--classname", "trusted")
        trusted = desktop.run(*search).split()[-1]
        desktop.run("xdotool", "mousemove", "1270", "1020")
        desktop.run("xdotool", "windowfocus", "--sync", trusted, "keydown", "x")
        try:
            desktop.run("xdotool", "mousemove", "150", "150")
            hostile.heard.clear()
            while hostile.received(Crossing)[:2] != (1, 7):
                pass
        finally:
            desktop.run("xdotool", "keyup", "x")
        keymaps = [message.keys for message in hostile.heard if isinstance(message, KeymapNotify)]
        assert keymaps
        assert not any(map(any, keymaps))
        assert not any(isinstance(message, KeyPress) for message in hostile.heard)


def test_a_qube_with_the_focus_hears_of_all_keys(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region) as hostile:
        hostile.send(*live(1, 0))
        shown = wait_for(lambda: desktop.framed("[work]"), "the qube's window")
        hostile.received(Focus)  # the window manager's, for a new window
        desktop.run("xdotool", "keydown", "x")
        try:
            pressed = hostile.received(KeyPress)
            desktop.run("xdotool", "windowfocus", str(desktop.root))
            hostile.received(Focus)
            desktop.run("xdotool", "windowfocus", str(shown.frame))
            keys = hostile.received(KeymapNotify).keys
        finally:
            desktop.run("xdotool", "keyup", "x")
        assert keys[pressed.keycode // 8] & 1 << pressed.keycode % 8


def test_events_made_by_other_programs_are_not_passed_on(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region) as hostile:
        hostile.send(*live(1, 0))
        shown = wait_for(lambda: desktop.framed("[work]"), "the qube's window")
        hostile.received(Focus)
        fake = struct.pack(
            "=BBHIIIIhhhhHBx", 2, 53, 0, 0, desktop.root, shown.frame, 0, *[0] * 5, 1
        )
        desktop.core.SendEvent(False, shown.frame, 0, fake)
        desktop.core.GetInputFocus().reply()
        desktop.run("xdotool", "key", "y")
        desktop_keymap = desktop.core.GetKeyboardMapping(8, 248).reply()
        per = desktop_keymap.keysyms_per_keycode
        pressed = hostile.received(KeyPress)
        assert desktop_keymap.keysyms[(pressed.keycode - 8) * per] == ord("y")
