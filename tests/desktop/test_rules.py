"""The rules of gui.md held against a viewer, message by message, by an agent of the test's own.

Its channel is plain, so that what passes is what an agent of another make would see.
"""

import contextlib
import socket
import struct
import tempfile
from collections.abc import Iterator

import pytest

from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.messages import (
    FIXED,
    HEADER,
    AgentMessage,
    ClipboardData,
    Close,
    Configure,
    Create,
    Destroy,
    Dock,
    Flag,
    KeyPress,
    Map,
    MessageType,
    ShmImage,
    Unmap,
    WindowClass,
    WindowDump,
    WindowDumpAck,
    WindowFlags,
    WindowHints,
    WindowName,
)
from tests.desktop.host import BLUE
from tests.desktop.hostile import RED, Hostile, framed, live, red_region, shown, window
from tests.desktop.joined import TIMEOUT, XServer, inside, ring, viewer_on, wait_for

XCONF = "00050000000400001800000001140000"  # of a screen of 1280x1024 pixels
FROM_AGENT = [MessageType(number) for number in (130, 131, 132, 133, 134, 136, 141, 143, 144, 145,
                                                 146, 148)]  # fmt: skip
FROM_VIEWER = (124, 125, 126, 127, 128, 129, 137, 138, 139, 142, 149)


@pytest.fixture(scope="module")
def region() -> int:
    return red_region()


@pytest.fixture
def agent(desktop: XServer, region: int) -> Iterator[Hostile]:
    with Hostile.against(desktop, region, minor=8) as hostile:
        yield hostile


@pytest.mark.parametrize(
    ("minor", "greeting"),
    [(8, "08000100" + XCONF), (9, "08000100" + XCONF), (4, "04000100" + XCONF), (3, XCONF)],
)
def test_greeting(desktop: XServer, region: int, minor: int, greeting: str) -> None:
    with Hostile.against(desktop, region, minor=minor) as hostile:
        assert hostile.greeting.hex() == greeting
        hostile.send(*live(1, 0))
        wait_for(lambda: framed(desktop), "the window")


@pytest.mark.parametrize(("word", "updated"), [(0x20000, "dom0"), (0x0FFFF, "it must be updated")])
def test_another_major_version_ends_the_viewer_and_says_what_to_update(
    desktop: XServer, region: int, word: int, updated: str
) -> None:
    ours, theirs = socket.socketpair()
    with (
        ours,
        tempfile.TemporaryFile() as log,
        viewer_on(desktop, theirs, region, {}, plain=True, stderr=log) as process,
    ):
        theirs.close()
        ours.sendall(struct.pack("<I", word))
        assert process.wait(TIMEOUT) == 1
        log.seek(0)
        assert updated in log.read().decode()


def test_an_old_agent_gets_no_message_that_it_does_not_know(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region, minor=4) as hostile:
        hostile.send(*live(1, 1), Destroy(1), *window(2, Rect(50, 60, 300, 200), b"close me"))
        frame = shown(desktop, "close me").frame
        atom = desktop.atom("_NET_CLOSE_WINDOW")
        event = struct.pack("=BBHII5I", 33, 32, 0, frame, atom, 0, 2, 0, 0, 0)
        desktop.core.SendEvent(False, desktop.root, 0x180000, event)
        desktop.connection.flush()
        hostile.received(Close)
        assert not any(isinstance(one, WindowDumpAck | Destroy) for one in hostile.heard)


def test_before_1_6_a_wrong_length_is_put_right(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region, minor=5) as hostile:
        hostile.send(Create(1, 10, 10, 100, 100, 0, 0))
        body = b"named".ljust(128, b"\0")
        hostile.channel.sendall(HEADER.pack(MessageType.WMNAME, 1, 5) + body)
        hostile.send(Map(1, 0, 0))
        shown(desktop, "named")
        assert hostile.settle()


@pytest.mark.parametrize("kind", FROM_AGENT)
@pytest.mark.parametrize("more", [-4, 4])
def test_a_wrong_length_is_fatal(
    desktop: XServer, region: int, kind: MessageType, more: int
) -> None:
    size = FIXED[kind][1].size + more
    with Hostile.against(desktop, region, minor=6) as hostile:
        hostile.channel.sendall(HEADER.pack(kind, 1, size % 2**32) + bytes(max(0, size)))
        assert not hostile.settle()
        assert hostile.outcome()[0] == 1


@pytest.mark.parametrize("number", [0, 123, *FROM_VIEWER, 150, 2**32 - 1])
def test_a_type_that_is_not_an_agents_is_fatal(desktop: XServer, region: int, number: int) -> None:
    with Hostile.against(desktop, region, minor=8) as hostile:
        hostile.send(*live(1, 0))
        hostile.channel.sendall(HEADER.pack(number, 1, 0))
        assert not hostile.settle()
        assert hostile.outcome()[0] == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MessageType.WINDOW_DUMP, struct.pack("<4I", 0, 1, 1, 32)),
        (MessageType.WINDOW_DUMP, struct.pack("<5I", 1, 1, 1, 32, 0)),
        (MessageType.WINDOW_DUMP, struct.pack("<5I", 0, 16385, 0, 32, 0)),
        (MessageType.WINDOW_DUMP, struct.pack("<5I", 0, 0, 6145, 32, 0)),
        (MessageType.WINDOW_DUMP, struct.pack("<5I", 0, 33, 32, 32, 0)),
        (MessageType.WINDOW_DUMP, struct.pack("<4I2x", 0, 1, 1, 32)),
        (MessageType.WINDOW_DUMP, struct.pack("<3I", 0, 0, 0)),
        (MessageType.WINDOW_DUMP, struct.pack("<4I", 0, 0, 0, 32) + bytes(4 * 98305)),
        (MessageType.WINDOW_DUMP, struct.pack("<5I", 0, 1, 1, 32, 2**32 - 1)),
        (MessageType.MFNDUMP, struct.pack("<8I", 0, 20, 20, 24, 64, 1, 0, 0xABCDE)),
        (MessageType.CLIPBOARD_DATA, bytes(256_002)),
    ],
)
def test_what_a_dump_or_a_clipboard_may_not_be_is_fatal(
    desktop: XServer, region: int, kind: MessageType, body: bytes
) -> None:
    with Hostile.against(desktop, region, minor=8) as hostile:
        hostile.send(*live(1, 0))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            hostile.channel.sendall(HEADER.pack(kind, 1, len(body)) + body)
        assert not hostile.settle()
        assert hostile.outcome()[0] == 1


def test_a_clipboard_is_shorter_before_1_8(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region, minor=7) as hostile:
        hostile.send(ClipboardData(9, bytes(65_000)))
        assert hostile.settle()
        hostile.send(ClipboardData(9, bytes(65_001)))
        assert not hostile.settle()


def test_each_dump_is_confirmed_in_order_and_may_have_pages_to_spare(agent: Hostile) -> None:
    sizes = [(1, 1), (16, 64), (32, 32), (0, 0)]
    agent.send(
        Create(1, 10, 10, 100, 100, 0, 0),
        *(WindowDump(1, *size, 7, tuple(range(9))) for size in sizes),
        Create(2, 10, 10, 100, 100, 0, 0),
        WindowDump(2, 1, 1, 0, (0,)),
    )
    assert agent.settle()
    acknowledged = [one.window for one in agent.heard if isinstance(one, WindowDumpAck)]
    assert acknowledged == [1, 1, 1, 1, 2]


def test_a_window_without_pixels_shows_its_part_of_the_whole_screen(
    desktop: XServer, agent: Hostile
) -> None:
    agent.send(
        Create(0, 0, 0, 512, 512, 0, 0),
        WindowDump(0, 512, 512, 32, tuple(range(256))),
        *(message for message in window(5, Rect(400, 300, 200, 150), b"part", override=1)
          if not isinstance(message, WindowDump)),
    )  # fmt: skip
    assert shown(desktop, "part").outer == Rect(400, 300, 200, 150)
    wait_for(lambda: RED in inside(desktop.pixels(Rect(400, 300, 112, 150)), 2), "its pixels")
    beside = Rect(512, 302, 86, 146)
    wait_for(lambda: inside(desktop.pixels(beside), 1) == {0xFFFFFF}, "its background beside them")
    agent.send(Unmap(0), Configure(5, 300, 300, 200, 150, 1), ShmImage(5, 0, 0, 200, 150))
    moved = Rect(300, 300, 200, 150)
    wait_for(lambda: shown(desktop, "part").outer == moved, "its new place")
    wait_for(lambda: inside(desktop.pixels(moved), 2) == {RED}, "more of them")
    assert ring(desktop.pixels(moved), 2) == {BLUE}


def test_dialogs_of_each_other_hold_up_nobody(desktop: XServer, agent: Hostile) -> None:
    numbers = (1, 2, 3)
    agent.send(*(Create(number, 50, 60, 200, 100, 0, 0) for number in numbers))
    agent.send(Map(1, 2, 0), Map(2, 3, 0), Map(3, 1, 0), WindowName(3, b"third"))
    assert desktop.words(shown(desktop, "third").frame, "WM_TRANSIENT_FOR") == ()
    agent.send(Unmap(2), Map(2, 2, 0), WindowName(2, b"second"), Unmap(1), Map(1, 99, 0))
    assert desktop.words(shown(desktop, "second").frame, "WM_TRANSIENT_FOR") == ()
    assert agent.settle()


def test_a_parents_end_is_forgotten_by_its_dialogs_alone(desktop: XServer, agent: Hostile) -> None:
    agent.send(*window(1, Rect(0, 0, 99, 99), b"first"), *window(2, Rect(0, 0, 99, 99), b"second"))
    agent.send(Create(3, 50, 60, 200, 100, 0, 0), Map(3, 1, 0), WindowName(3, b"of the first"))
    agent.send(Create(4, 50, 60, 200, 100, 0, 0), Map(4, 2, 0), WindowName(4, b"of the second"))
    parent = shown(desktop, "[work] second").frame
    one, other = shown(desktop, "of the first").frame, shown(desktop, "of the second").frame
    agent.send(Destroy(1))
    assert agent.settle()
    wait_for(lambda: desktop.words(one, "WM_TRANSIENT_FOR") == (), "no parent any more")
    assert desktop.words(other, "WM_TRANSIENT_FOR") == (parent,)


def test_one_change_at_a_time_is_reported_and_acknowledged(
    desktop: XServer, agent: Hostile
) -> None:
    agent.send(*window(1, Rect(100, 100, 300, 200), b"moved"))
    frame = shown(desktop, "moved").frame
    placed = agent.received(Configure)  # where the window manager wants it
    desktop.run("xdotool", "windowsize", "--sync", str(frame), "408", "308")
    assert agent.settle()  # nothing more while one is outstanding
    assert [one for one in agent.heard if isinstance(one, Configure)] == [placed]
    agent.send(placed)
    told = agent.received(Configure)
    assert told[3:5] == (400, 300)
    agent.send(told._replace(width=333))  # a wish at the wrong time
    assert agent.received(Configure) == told
    agent.send(told)
    assert agent.settle()
    agent.send(told._replace(width=333))
    wait_for(lambda: desktop.geometry(frame)[2:] == (341, 308), "the agent's own wish")


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (2**31, 5), (5, 2**32 - 1)])
def test_a_size_that_is_none_is_refused_and_what_follows_is_taken(
    desktop: XServer, agent: Hostile, size: tuple[int, int]
) -> None:
    agent.send(*window(1, Rect(100, 100, 300, 200), b"sized"), Configure(1, 9, 9, *size, 0))
    agent.send(WindowName(1, b"after"))
    assert shown(desktop, "after").outer[2:] == (308, 208)
    assert agent.settle()


def test_places_and_sizes_are_clamped(desktop: XServer, agent: Hostile) -> None:
    agent.send(
        Create(1, -(2**31), 2**31 - 1, 2**31 - 1, 2**31 - 1, 0, 0),
        Map(1, 0, 0),
        WindowName(1, b"vast"),
        Create(2, 5, 5, 0, 0, 0, 1),
        Map(2, 0, 1),
    )
    assert shown(desktop, "vast").outer[2:] <= (16384 + 8, 6144 + 8)
    assert agent.settle()


def test_hints_out_of_bounds_are_dropped_by_the_group(desktop: XServer, agent: Hostile) -> None:
    agent.send(*window(1, Rect(100, 100, 300, 200), b"hinted"))
    frame = shown(desktop, "hinted").frame
    agent.send(WindowHints(1, 0xFFFFFFFF, 16385, 9, 500, 400, 16384, 1, 7, 6145))
    wait_for(lambda: desktop.words(frame, "WM_NORMAL_HINTS")[7:9] == (508, 408), "the hints")
    assert desktop.words(frame, "WM_NORMAL_HINTS")[0] == 0x1 | 0x4 | 0x8 | 0x20 | 0x200


def states(desktop: XServer, frame: int) -> set[str]:
    names = ("FULLSCREEN", "DEMANDS_ATTENTION", "HIDDEN", "MAXIMIZED_VERT", "MAXIMIZED_HORZ")
    atoms = desktop.words(frame, "_NET_WM_STATE")
    return {name for name in names if desktop.atom(f"_NET_WM_STATE_{name}") in atoms}


MAXIMISED = {"MAXIMIZED_VERT", "MAXIMIZED_HORZ"}


@pytest.mark.parametrize("mapped", [True, False])
def test_full_screen_is_maximised_and_the_qube_believes_it(
    desktop: XServer, agent: Hostile, mapped: bool
) -> None:
    messages: list[AgentMessage] = window(1, Rect(100, 100, 300, 200), b"film")
    messages.insert(3 if mapped else 2, WindowFlags(1, 1, 0))
    agent.send(*messages)
    frame = shown(desktop, "film").frame
    wait_for(lambda: states(desktop, frame) >= MAXIMISED, "the window maximised")
    assert "FULLSCREEN" not in states(desktop, frame)
    assert agent.received(WindowFlags)[1:] == (Flag.FULLSCREEN, 0)
    agent.send(WindowFlags(1, 0, 1))
    assert agent.received(WindowFlags)[1:] == (0, Flag.FULLSCREEN)
    assert not states(desktop, frame)


def test_full_screen_where_it_is_allowed(desktop: XServer, region: int) -> None:
    with Hostile.against(desktop, region, minor=8, allow_fullscreen=True) as agent:
        agent.send(*window(1, Rect(100, 100, 300, 200), b"film"), WindowFlags(1, 1, 0))
        frame = shown(desktop, "film").frame
        wait_for(lambda: "FULLSCREEN" in states(desktop, frame), "full screen")
        assert agent.received(WindowFlags)[1:] == (Flag.FULLSCREEN, 0)


def test_a_person_may_put_any_window_full_screen_and_the_qube_may_leave_it(
    desktop: XServer, agent: Hostile
) -> None:
    agent.send(*window(1, Rect(100, 100, 300, 200), b"chosen"))
    frame = shown(desktop, "chosen").frame
    words = (1, desktop.atom("_NET_WM_STATE_FULLSCREEN"), 0, 2, 0)
    event = struct.pack("=BBHII5I", 33, 32, 0, frame, desktop.atom("_NET_WM_STATE"), *words)
    desktop.core.SendEvent(False, desktop.root, 0x180000, event)
    desktop.connection.flush()
    assert agent.received(WindowFlags)[1:] == (Flag.FULLSCREEN, 0)
    agent.send(WindowFlags(1, 0, 1))
    assert agent.received(WindowFlags)[1:] == (0, Flag.FULLSCREEN)


def test_minimised_and_back(desktop: XServer, agent: Hostile) -> None:
    agent.send(*window(1, Rect(100, 100, 300, 200), b"small"))
    frame = shown(desktop, "small").frame
    agent.send(WindowFlags(1, Flag.MINIMIZE | Flag.FULLSCREEN, 0))
    assert agent.received(WindowFlags)[1:] == (Flag.MINIMIZE, 0)
    wait_for(lambda: not desktop.viewable(frame), "the window hidden")
    desktop.run("xdotool", "windowmap", str(frame))
    assert agent.received(WindowFlags)[1:] == (0, Flag.MINIMIZE)
    assert "MAXIMIZED_VERT" not in states(desktop, frame)


def test_a_window_may_ask_for_attention(desktop: XServer, agent: Hostile) -> None:
    agent.send(*window(1, Rect(100, 100, 300, 200), b"urgent"))
    frame = shown(desktop, "urgent").frame
    agent.send(*window(2, Rect(500, 100, 300, 200), b"busy"))
    desktop.run("xdotool", "windowactivate", "--sync", str(shown(desktop, "busy").frame))
    agent.send(WindowFlags(1, Flag.DEMANDS_ATTENTION | 0xFFFFFFF8, 0))
    assert agent.received(WindowFlags)[1:] == (Flag.DEMANDS_ATTENTION, 0)
    assert "DEMANDS_ATTENTION" in states(desktop, frame)


@pytest.mark.parametrize(
    ("utf8", "title", "text"),
    [
        (False, "żółw", "______w"),
        (True, "żółw", "żółw"),
        (False, "long…", "long..."),
        (True, "left\u202eright", "left___right"),
    ],
)
def test_titles(desktop: XServer, region: int, utf8: bool, title: str, text: str) -> None:
    with Hostile.against(desktop, region, minor=8, allow_utf8_titles=utf8) as agent:
        agent.send(*window(1, Rect(100, 100, 300, 200), title.encode()))
        frame = shown(desktop, "[work]").frame
        for name in ("WM_NAME", "WM_ICON_NAME", "_NET_WM_NAME", "_NET_WM_ICON_NAME"):
            assert desktop.property(frame, name).decode() == f"[work] {text}"


def test_a_class_has_the_qubes_name_and_does_not_change_on_the_screen(
    desktop: XServer, agent: Hostile
) -> None:
    messages = window(1, Rect(100, 100, 300, 200), b"classy")
    messages.insert(1, WindowClass(1, b"XScreen\xe9", b"xscreensaver"))
    agent.send(*messages, WindowClass(1, b"Other", b"other"))
    frame = shown(desktop, "classy").frame
    assert agent.settle()
    assert desktop.property(frame, "WM_CLASS") == b"work:xscreensaver\0work:XScreen_\0"


@pytest.mark.parametrize(("height", "granted"), [(900, True), (922, False)])
def test_frameless_windows_may_not_cover_nine_tenths(
    desktop: XServer, agent: Hostile, height: int, granted: bool
) -> None:
    agent.send(*window(1, Rect(0, 0, 1280, height), b"cover", override=1))
    frame = shown(desktop, "cover").frame
    assert bool(desktop.core.GetWindowAttributes(frame).reply().override_redirect) is granted


def test_tiles_may_not_cover_nine_tenths_either(desktop: XServer, agent: Hostile) -> None:
    for number in range(1, 5):
        agent.send(*window(number, Rect(0, 256 * number - 256, 1280, 256), b"tile", override=1))
    assert agent.settle()
    wait_for(lambda: sorted(one for _, one in framed(desktop)) == [False, True, True, True],
             "one with a frame")  # fmt: skip


def test_a_frameless_window_grown_too_large_gets_a_frame(desktop: XServer, agent: Hostile) -> None:
    agent.send(*window(1, Rect(10, 10, 300, 200), b"grown", override=1))
    frame = shown(desktop, "grown").frame
    agent.send(Configure(1, 0, 0, 1280, 1024, 1))
    assert agent.settle()
    wait_for(
        lambda: not desktop.core.GetWindowAttributes(frame).reply().override_redirect, "a frame"
    )
    wait_for(lambda: desktop.viewable(frame), "the window")


def test_a_frameless_window_cannot_leave_the_work_area_by_a_part(
    desktop: XServer, agent: Hostile
) -> None:
    agent.send(*window(1, Rect(-20, 10, 200, 100), b"moved", override=1))
    assert shown(desktop, "moved").outer == Rect(0, 10, 200, 100)
    agent.send(agent.received(Configure), Configure(1, 1200, 1000, 300, 200, 1))
    frame = shown(desktop, "moved").frame
    wait_for(lambda: desktop.geometry(frame) == Rect(980, 824, 300, 200), "its place")


def test_no_frameless_window_is_above_a_screen_locker(desktop: XServer, agent: Hostile) -> None:
    core = desktop.core
    locker = desktop.connection.generate_id()
    core.CreateWindow(0, locker, desktop.root, 0, 0, 1280, 1024, 0, 1, 0, 0x202, [0, 1])
    name = b"xscreensaver\0XScreenSaver\0"
    core.ChangeProperty(0, locker, desktop.atom("WM_CLASS"), 31, 8, len(name), name)
    core.MapWindow(locker)
    desktop.connection.flush()
    try:
        agent.send(*window(1, Rect(10, 10, 300, 200), b"above", override=1))
        frame = shown(desktop, "above").frame
        assert agent.settle()
        children = list(core.QueryTree(desktop.root).reply().children)
        assert children.index(frame) == children.index(locker) - 1
    finally:
        core.DestroyWindow(locker)
        desktop.connection.flush()


@pytest.mark.parametrize("supported", [True, False])
def test_one_time_of_input_for_all_windows_of_a_qube(
    desktop: XServer, region: int, supported: bool
) -> None:
    kept = desktop.words(desktop.root, "_NET_SUPPORTED")
    if supported:
        set_words(desktop, "_NET_SUPPORTED", *kept, desktop.atom("_NET_WM_USER_TIME_WINDOW"))
    try:
        with Hostile.against(desktop, region, minor=8) as agent:
            agent.send(*window(1, Rect(100, 100, 300, 200), b"timed"))
            frame = shown(desktop, "timed").frame
            helpers = desktop.words(frame, "_NET_WM_USER_TIME_WINDOW")
            assert len(helpers) == supported
            desktop.run("xdotool", "windowfocus", "--sync", str(frame), "key", "x")
            agent.received(KeyPress)
            (place,) = helpers or (frame,)
            wait_for(lambda: desktop.words(place, "_NET_WM_USER_TIME"), "a time")
    finally:
        set_words(desktop, "_NET_SUPPORTED", *kept)


def set_words(desktop: XServer, name: str, *words: int) -> None:
    raw = struct.pack(f"={len(words)}I", *words)
    desktop.core.ChangeProperty(0, desktop.root, desktop.atom(name), 4, 32, len(words), raw)
    desktop.connection.flush()


def test_input_is_held_back_for_a_random_time_and_stays_in_order(
    desktop: XServer, region: int
) -> None:
    with Hostile.against(desktop, region, minor=8, events_max_delay=300) as agent:
        agent.send(*window(1, Rect(100, 100, 300, 200), b"typed"))
        frame = shown(desktop, "typed").frame
        desktop.run("xdotool", "windowfocus", "--sync", str(frame), "type", "hello")
        keys = [agent.received(KeyPress) for _ in range(10)]
        mapping = desktop.core.GetKeyboardMapping(8, 248).reply()
        per = mapping.keysyms_per_keycode
        typed = [mapping.keysyms[(key.keycode - 8) * per] for key in keys if key.type == 2]
        assert bytes(typed) == b"hello"


def test_a_mapped_window_does_not_go_into_the_tray(desktop: XServer, agent: Hostile) -> None:
    agent.send(*window(1, Rect(100, 100, 300, 200), b"stays"), Dock(1))
    assert agent.settle()
    assert desktop.viewable(shown(desktop, "stays").frame)
