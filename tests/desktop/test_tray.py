"""Icons of a qube in the person's tray: coloured, framed where wanted, and never outside of it."""

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
import xcffib
import xcffib.xproto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.messages import (
    AgentMessage,
    Button,
    Configure,
    Create,
    Crossing,
    Dock,
    Focus,
    Map,
    ShmImage,
    Unmap,
    WindowDump,
    WindowFlags,
)
from tests.desktop.application import Application, tray_icon
from tests.desktop.host import BLUE
from tests.desktop.hostile import Hostile, red_region
from tests.desktop.joined import Joined, XServer, fill, inside, ring, wait_for

SIDE = 24
GREY, GREY_IN_BLUE = 0x808080, 0x3E77C1


class Tray:
    """A tray of the desktop's: each icon in a row along its upper edge."""

    def __init__(self, desktop: XServer) -> None:
        library: Any = xcffib
        self.server = desktop
        self.connection: Any = library.connect(display=desktop.display)
        self.core: Any = self.connection.core
        mask = xcffib.xproto.CW
        self.panel = self.connection.generate_id()
        self.core.CreateWindow(
            0, self.panel, desktop.root, 300, 40, 200, 30, 0, 1, 0,
            mask.BackPixel | mask.OverrideRedirect, [0x101010, 1],
        )  # fmt: skip
        self.core.MapWindow(self.panel)
        selection = desktop.atom("_NET_SYSTEM_TRAY_S0")
        self.core.SetSelectionOwner(self.panel, selection, 0)
        self._send(desktop.root, "MANAGER", (0, selection, self.panel, 0, 0), 0x20000)
        self.docked: list[int] = []

    def _send(self, window: int, name: str, words: tuple[int, ...], mask: int = 0) -> None:
        event = struct.pack("=BBHII5I", 33, 32, 0, window, self.server.atom(name), *words)
        self.core.SendEvent(False, window, mask, event)
        self.connection.flush()

    def serve(self) -> int:
        """Take the next icon in; returns it."""
        opcode = self.server.atom("_NET_SYSTEM_TRAY_OPCODE")

        def asked() -> int | None:
            event = self.connection.poll_for_event()
            if isinstance(event, xcffib.xproto.ClientMessageEvent) and event.type == opcode:
                return int(event.data.data32[2])
            return None

        icon = wait_for(asked, "an icon")
        at = [len(self.docked) * SIDE + 2, 3, SIDE, SIDE]
        self.core.ReparentWindow(icon, self.panel, at[0], at[1])
        self.core.ConfigureWindow(icon, 15, at)
        self._send(icon, "_XEMBED", (0, 0, 0, self.panel, 0))
        self.docked.append(icon)
        return icon

    def place(self, number: int = 0) -> Rect:
        """Where on the screen an icon is."""
        return Rect(302 + number * SIDE, 43, SIDE, SIDE)

    def end(self) -> None:
        """Be gone, as after a crash: whatever is inside goes down with it."""
        self.connection.disconnect()


@contextmanager
def tray_on(desktop: XServer) -> Iterator[Tray]:
    tray = Tray(desktop)
    try:
        yield tray
    finally:
        tray.end()


@pytest.fixture(scope="module")
def region() -> int:
    """Page 64 and those after it are grey."""
    descriptor = red_region()
    fill(descriptor, 64, GREY, 1024 * 64)
    return descriptor


def icon(number: int, side: int = SIDE) -> list[AgentMessage]:
    """Messages that put a grey icon into the tray."""
    return [
        Create(number, 0, 0, side, side, 0, 0),
        Dock(number),
        WindowDump(number, side, side, 32, tuple(range(64, 128))),
        ShmImage(number, 0, 0, side, side),
    ]


def only(desktop: XServer, rect: Rect, colour: int) -> bool:
    """Whether a rectangle of the screen has one colour alone."""
    return {one for row in desktop.pixels(rect) for one in row} == {colour}


@pytest.mark.parametrize(
    ("mode", "outer", "second", "inner"),
    [
        ("tint", GREY_IN_BLUE, GREY_IN_BLUE, GREY_IN_BLUE),
        ("tint+saturation50", 0x5F7BA0, 0x5F7BA0, 0x5F7BA0),
        ("border1", BLUE, GREY, GREY),
        ("border2", 0xFFFFFF, BLUE, GREY),
        ("tint+border1", BLUE, GREY_IN_BLUE, GREY_IN_BLUE),
        ("bg", BLUE, BLUE, BLUE),
    ],
)
def test_an_icon_is_coloured(
    desktop: XServer, region: int, mode: str, *, outer: int, second: int, inner: int
) -> None:
    with (
        tray_on(desktop) as tray,
        Hostile.against(desktop, region, minor=8, trayicon_mode=mode) as agent,
    ):
        agent.send(*icon(1))
        tray.serve()
        at = tray.place()
        wait_for(lambda: inside(desktop.pixels(at), 2) == {inner}, "the icon's pixels")
        assert ring(desktop.pixels(at), 1) == {outer}
        assert ring(desktop.pixels(at.grown(-1)), 1) == {second}
        agent.send(ShmImage(1, 0, 0, SIDE, SIDE))
        assert agent.settle()
        assert ring(desktop.pixels(at), 1) == {outer}


def test_an_icons_place_is_told_and_its_wishes_are_not_granted(
    desktop: XServer, region: int
) -> None:
    with tray_on(desktop) as tray, Hostile.against(desktop, region, minor=8) as agent:
        desktop.run("xdotool", "mousemove", "1270", "1020")
        agent.send(*icon(1, 32))
        frame = tray.serve()
        at = Configure(1, *tray.place(), 0)
        told = agent.received(Configure)
        while told != at:
            agent.send(told)
            told = agent.received(Configure)
        agent.send(at, Configure(1, 5, 5, 900, 700, 0))
        assert agent.received(Configure) == at
        agent.send(at, Map(1, 0, 1), Unmap(1), Dock(1))
        assert agent.settle()
        assert desktop.viewable(frame)
        assert desktop.geometry(frame) == tray.place()
        tray.core.ConfigureWindow(tray.panel, 1, [500])
        tray.connection.flush()
        desktop.run("xdotool", "mousemove", "510", "55")
        assert agent.received(Configure) == at._replace(x=502)
        assert agent.received(Crossing).type == 7


def test_a_click_on_an_icon_gives_it_the_focus(desktop: XServer, region: int) -> None:
    with tray_on(desktop) as tray, Hostile.against(desktop, region, minor=8) as agent:
        agent.send(*icon(1))
        frame = tray.serve()
        wait_for(lambda: desktop.viewable(frame), "the icon")
        at = tray.place()
        desktop.run("xdotool", "mousemove", str(at.x + 5), str(at.y + 7), "click", "1")
        pressed = agent.received(Button)
        assert pressed[1:4] == (4, 5, 7)
        assert agent.received(Focus).type == 9
        assert desktop.core.GetInputFocus().reply().focus == frame


def test_icons_wait_for_a_tray_and_come_back_with_another(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region, minor=8) as agent:
        agent.send(*icon(1), *icon(2))
        assert agent.settle()
        for _ in range(2):
            with tray_on(desktop) as tray:
                frames = {tray.serve(), tray.serve()}
                row = tray.place()._replace(width=2 * SIDE)
                wait_for(partial(only, desktop, row, GREY_IN_BLUE), "the icons' pixels")
                assert len(frames) == 2
            assert agent.settle()
            frames = set(filter(desktop.viewable, desktop.descendants(desktop.root)))
            assert not any(desktop.property(one, "_QUBES_VMNAME") for one in frames)


def test_an_icon_that_falls_out_of_its_tray_is_not_seen(desktop: XServer, region: int) -> None:
    with tray_on(desktop) as tray, Hostile.against(desktop, region, minor=8) as agent:
        agent.send(*icon(1))
        frame = tray.serve()
        wait_for(lambda: desktop.viewable(frame), "the icon")
        tray.core.ReparentWindow(frame, desktop.root, 600, 600)
        tray.connection.flush()
        wait_for(lambda: not desktop.viewable(frame), "its end")
        agent.send(Map(1, 0, 1), ShmImage(1, 0, 0, SIDE, SIDE))
        assert agent.settle()
        assert not desktop.viewable(frame)


def test_a_giant_icon_is_but_a_colour(desktop: XServer, region: int) -> None:
    with tray_on(desktop) as tray, Hostile.against(desktop, region, minor=8) as agent:
        agent.send(
            Create(1, 0, 0, 300, 300, 0, 1),
            Dock(1),
            WindowDump(1, 300, 40, 32, tuple(range(64, 128))),
        )
        frame = tray.serve()
        tray.core.ConfigureWindow(frame, 12, [300, 25])
        tray.connection.flush()
        agent.send(ShmImage(1, 0, 0, 300, 40))
        wait_for(lambda: only(desktop, tray.place(), BLUE), "the label's colour")


windows = st.integers(1, 3)
sides = st.sampled_from([1, 2, 3, 8, SIDE, 100, 128])
places = st.sampled_from([-500, -1, 0, 1, 12, 600, 2**31 - 1])
messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(Map, windows, windows, st.integers(0, 1)),
    st.builds(Unmap, windows),
    st.builds(Configure, windows, places, places, sides, sides, st.integers(0, 1)),
    st.builds(ShmImage, windows, places, places, sides, sides),
    st.builds(WindowDump, windows, sides, sides, st.just(32), st.just(tuple(range(64, 128)))),
    st.builds(WindowFlags, windows, st.integers(0, 7), st.just(0)),
    st.builds(Dock, windows),
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent=st.lists(messages, min_size=5, max_size=40), crash=st.booleans())
def test_whatever_icons_do_they_are_tinted_and_stay_in_their_tray(
    desktop: XServer, region: int, sent: list[AgentMessage], crash: bool
) -> None:
    with Hostile.against(desktop, region) as agent, ExitStack() as trays:
        tray = trays.enter_context(tray_on(desktop))
        agent.send(*icon(1), *icon(2), *icon(3))
        for _ in range(3):
            tray.serve()
        agent.send(*sent[: len(sent) // 2])
        if crash:
            trays.close()
        agent.send(*sent[len(sent) // 2 :])
        for number in range(1, 4):
            agent.send(ShmImage(number, 0, 0, SIDE, SIDE))
        assert agent.settle()
        row = tray.place()._replace(width=3 * SIDE)
        for y, line in enumerate(desktop.pixels(Rect(0, 0, 1280, 1024))):
            assert GREY not in line
            for x, colour in enumerate(line):
                inside_row = row.x <= x < row.right and row.y <= y < row.bottom
                assert colour != GREY_IN_BLUE or (inside_row and not crash)
        code, log = agent.outcome()
    assert code == 0, log
    assert not any("Traceback" in line for line in log), log


def test_one_qube_cannot_fill_the_tray(desktop: XServer, region: int) -> None:
    with tray_on(desktop) as tray, Hostile.against(desktop, region, minor=8) as agent:
        for number in range(1, 41):
            agent.send(Create(number, 0, 0, 22, 22, 0, 0), Dock(number))
        for _ in range(32):
            tray.serve()
        assert agent.settle()
        code, log = agent.outcome()
    assert code == 0
    assert sum("32 icons already" in line for line in log) == 8


def test_a_programs_icon_by_the_real_agent(joined: Joined) -> None:
    application = Application(joined.qube)
    with tray_on(joined.desktop) as tray:
        window = tray_icon(application, GREY)
        frame = tray.serve()
        at = tray.place()
        wait_for(lambda: only(joined.desktop, at, GREY_IN_BLUE), "the icon's pixels")
        wait_for(lambda: joined.qube.geometry(window) == at, "the icon's place in the qube")
        joined.desktop.run("xdotool", "mousemove", str(at.x + 3), str(at.y + 4), "click", "3")
        pressed = application.next(xcffib.xproto.ButtonPressEvent)
        assert (pressed.event_x, pressed.event_y, pressed.detail) == (3, 4, 3)
        application.core.DestroyWindow(window)
        application.connection.flush()
        frames = joined.desktop
        wait_for(lambda: frame not in set(frames.descendants(frames.root)), "the icon's end")
    application.connection.disconnect()
