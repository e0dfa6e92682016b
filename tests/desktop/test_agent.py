"""The window agent held against gui.md by a viewer of the test's own, on a plain channel."""

import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import xcffib
import xcffib.xfixes
import xcffib.xproto

from insula.guest.gui import clipboard as guest_clipboard
from insula.guest.gui.clipboard import Clipboard
from insula.guest.gui.cursors import glyph_of
from insula.guest.gui.display import Display
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.handshake import viewer_answer
from insula.protocol.gui.messages import (
    Button,
    ClipboardData,
    ClipboardRequest,
    Close,
    Configure,
    Create,
    Crossing,
    Cursor,
    Destroy,
    Dock,
    Map,
    Motion,
    ShmImage,
    Unmap,
    ViewerMessage,
    WindowDump,
    WindowDumpAck,
    WindowFlags,
    WindowName,
    encode,
)
from insula.protocol.gui.stream import take_from_agent
from tests.desktop.application import Application, tray_icon
from tests.desktop.joined import TIMEOUT, XServer, agent_on, make_region, wait_for

RED = 0xFF0000
PAGE = 4096


@dataclass(slots=True)
class Watching:
    """The viewer's end of an agent's channel."""

    path: Path
    region: int
    minor: int = 8
    channel: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))
    received: bytearray = field(default_factory=bytearray)
    heard: list[Any] = field(default_factory=list)

    def begin(self, minor: int = 8) -> None:
        """Connect anew, as a viewer of a version."""
        self.channel.close()
        self.received.clear()
        self.heard.clear()
        self.minor = minor
        self.channel = socket.socket(socket.AF_UNIX)
        self.channel.settimeout(TIMEOUT)
        self.channel.connect(str(self.path))
        assert self.channel.recv(4).hex() == "08000100"
        self.channel.sendall(viewer_answer(minor, 1280, 1024, 24))

    def send(self, *messages: ViewerMessage) -> None:
        self.channel.sendall(b"".join(encode(message) for message in messages))

    def next(self, kind: type, fits: Callable[[Any], bool] = lambda _: True) -> Any:
        """Wait for a message; what came before it is kept in heard. Dumps are acknowledged."""
        while True:
            while (message := take_from_agent(self.received, self.minor)) is not None:
                self.heard.append(message)
                if isinstance(message, WindowDump) and self.minor >= 7:
                    self.send(WindowDumpAck(message.window))
                if isinstance(message, kind) and fits(message):
                    return message
            chunk = self.channel.recv(65536)
            assert chunk, "the agent has hung up"
            self.received += chunk

    def settle(self, application: Application) -> None:
        """Take all that the agent has said of what was done so far."""
        window = application.window(b"settle", Rect(900, 900, 9, 9), 0, override=True)
        self.next(Map, lambda message: message.window == window)
        application.core.DestroyWindow(window)
        application.connection.flush()
        self.next(Destroy, lambda message: message.window == window)

    def pixel(self, dump: WindowDump, x: int, y: int) -> int:
        """What a dump's pages hold."""
        at = (y * dump.width + x) * 4
        with mmap.mmap(self.region, 0, prot=mmap.PROT_READ) as memory:
            start = dump.references[at // PAGE] * PAGE + at % PAGE
            return int(struct.unpack("<I", memory[start : start + 4])[0]) & 0xFFFFFF


@pytest.fixture
def viewer(qube_display: XServer, tmp_path: Path) -> Iterator[Watching]:
    with viewing(qube_display, tmp_path) as watching:
        watching.begin()
        yield watching


@contextmanager
def viewing(server: XServer, directory: Path) -> Iterator[Watching]:
    region = make_region()
    with ExitStack() as undo:
        undo.callback(os.close, region)
        path = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="a")), "gui.sock")
        undo.enter_context(agent_on(server, directory, path, region, INSULA_GUI_CHANNEL="plain"))
        watching = Watching(path, region)
        yield watching
        watching.channel.close()


@pytest.fixture
def application(viewer: Watching, qube_display: XServer) -> Iterator[Application]:
    assert viewer.minor
    made = Application(qube_display)
    yield made
    made.connection.disconnect()


def test_the_life_of_a_window_to_the_byte(viewer: Watching, application: Application) -> None:
    window = application.window(b"Terminal", Rect(100, 80, 300, 200), RED)
    created = viewer.next(Create, lambda message: message.window == window)
    body = struct.pack("<III", 130, window, 24) + bytes.fromhex(
        "6400000050000000" + "2c010000c8000000" + "0000000000000000"
    )
    assert encode(created) == body
    mapped = viewer.next(Map)
    assert encode(mapped) == struct.pack("<III", 132, window, 8) + bytes(8)
    assert any(isinstance(one, WindowFlags) for one in viewer.heard)
    titles = [one.title for one in viewer.heard if isinstance(one, WindowName)]
    assert titles == [b"Terminal".ljust(128, b"\0")]
    dump = viewer.next(WindowDump)
    assert dump[:4] == (window, 300, 200, 32)
    assert len(dump.references) == -(-300 * 200 * 4 // PAGE)
    damage = viewer.next(ShmImage)
    assert damage == ShmImage(window, 0, 0, 300, 200)
    assert viewer.pixel(dump, 0, 0) == viewer.pixel(dump, 299, 199) == RED
    application.core.UnmapWindow(window)
    application.connection.flush()
    assert viewer.next(Unmap) == Unmap(window)
    application.core.DestroyWindow(window)
    application.connection.flush()
    assert viewer.next(Destroy) == Destroy(window)


def test_every_configure_is_acknowledged_even_one_that_changes_nothing(
    viewer: Watching, application: Application
) -> None:
    window = application.window(b"placed", Rect(10, 20, 300, 200), RED)
    viewer.next(Map)
    for rect in ((10, 20, 300, 200), (50, 60, 400, 100)):
        wanted = Configure(window, *rect, 0)
        viewer.send(wanted)
        assert viewer.next(Configure) == wanted
    assert viewer.next(WindowDump, lambda one: one.width == 400).height == 100


def test_a_viewer_that_comes_later_is_told_of_all_that_is_there(
    viewer: Watching, application: Application
) -> None:
    shown = application.window(b"shown", Rect(10, 20, 300, 200), RED)
    hidden = application.window(b"hidden", Rect(10, 20, 30, 20), RED)
    application.core.UnmapWindow(hidden)
    application.connection.flush()
    viewer.next(Unmap)
    viewer.begin()
    viewer.next(ShmImage)
    kinds = [type(one) for one in viewer.heard if one.window == shown]
    assert kinds[0] is Create
    assert kinds.index(Create) < kinds.index(Configure) < kinds.index(Map)
    assert kinds[-2:] == [WindowDump, ShmImage]
    assert Map not in [type(one) for one in viewer.heard if one.window == hidden]


def test_wishes_of_a_program_become_flags(viewer: Watching, application: Application) -> None:
    window = application.window(b"wishes", Rect(10, 20, 300, 200), RED)
    viewer.next(Map)
    application.words(window, "WM_HINTS", "WM_HINTS", 256, 1, 1, 0, 0, 0, 0, 0, 0)
    assert viewer.next(WindowFlags, lambda one: one.flags_set == 2) == WindowFlags(window, 2, 0)
    application.words(window, "WM_HINTS", "WM_HINTS", 0, 1, 1, 0, 0, 0, 0, 0, 0)
    assert viewer.next(WindowFlags) == WindowFlags(window, 0, 2)
    full = application.server.atom("_NET_WM_STATE_FULLSCREEN")
    attention = application.server.atom("_NET_WM_STATE_DEMANDS_ATTENTION")
    for name, words, flags in (
        ("WM_CHANGE_STATE", (3, 0, 0), (4, 0)),
        ("_NET_WM_STATE", (1, full, attention), (3, 0)),
        ("_NET_WM_STATE", (0, full, 0), (0, 1)),
        ("_NET_WM_STATE", (2, full, 0), (1, 0)),
    ):
        atom = application.server.atom(name)
        event = struct.pack("=BBHII5I", 33, 32, 0, window, atom, *words, 0, 0)
        application.core.SendEvent(False, application.server.root, 0x180000, event)
        application.connection.flush()
        assert viewer.next(WindowFlags) == WindowFlags(window, *flags)


@pytest.mark.parametrize(
    ("name", "kind", "title", "told"),
    [
        ("WM_NAME", "STRING", b"caf\xe9", b"caf\xc3\xa9"),
        ("WM_NAME", "UTF8_STRING", b"caf\xc3\xa9", b"caf\xc3\xa9"),
        ("_NET_WM_NAME", "UTF8_STRING", b"x" * 126, b"x" * 126),
        ("_NET_WM_NAME", "UTF8_STRING", b"x" * 127, b"x" * 124 + b"\xe2\x80\xa6"),
        ("_NET_WM_NAME", "UTF8_STRING", b"x" * 123 + b"\xc3\xa9" * 9,
         b"x" * 123 + b"\xe2\x80\xa6"),
    ],
)  # fmt: skip
def test_titles_are_utf8_and_fit(
    viewer: Watching, application: Application, *, name: str, kind: str, title: bytes, told: bytes
) -> None:
    window = application.window(b"", Rect(10, 20, 300, 200), RED)
    viewer.next(Map)
    application.core.DeleteProperty(window, application.server.atom("_NET_WM_NAME"))
    application.property(window, name, kind, title)
    named = viewer.next(WindowName, lambda one: one.title.rstrip(b"\0") != b"")
    assert named == WindowName(window, told.ljust(128, b"\0"))


@pytest.mark.parametrize("minor", [4, 6])
def test_a_viewer_that_confirms_nothing_does_not_use_up_the_pixels(
    viewer: Watching, application: Application, minor: int
) -> None:
    viewer.begin(minor)
    for turn in range(30):
        rect = Rect(0, 0, 1500 - turn, 1100)
        window = application.window(b"large", rect, RED)
        viewer.next(WindowDump, _is_wide(rect.width))
        application.core.ConfigureWindow(window, 4, [1000])
        application.connection.flush()
        viewer.next(WindowDump, lambda message: message.width == 1000)
        application.core.DestroyWindow(window)
        application.connection.flush()
        viewer.next(Destroy)
        if minor >= 5:
            viewer.send(Destroy(window))


def _is_wide(width: int) -> Callable[[Any], bool]:
    return lambda dump: bool(dump.width == width)


@pytest.mark.parametrize("word", [0x10003, 0x10009, 0x20004, 0x8])
def test_a_viewer_of_a_version_that_it_does_not_speak_is_hung_up_on(
    viewer: Watching, word: int
) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(TIMEOUT)
        channel.connect(str(viewer.path))
        assert len(channel.recv(4)) == 4
        channel.sendall(struct.pack("<5I", word, 1280, 1024, 24, 5121))
        assert channel.recv(4) == b""
    viewer.begin()


def test_a_message_that_it_does_not_know_is_skipped(
    viewer: Watching, application: Application
) -> None:
    window = application.window(b"here", Rect(10, 20, 300, 200), RED)
    viewer.next(Map)
    viewer.channel.sendall(struct.pack("<III", 999, window, 77) + bytes(77))
    viewer.channel.sendall(struct.pack("<III", 129, window, 8) + bytes(8))
    viewer.send(Close(1234), Configure(window, 1, 2, 30, 40, 0))
    assert viewer.next(Configure, lambda one: one.x == 1)[1:5] == (1, 2, 30, 40)


class Owner:
    """A program that owns the clipboard."""

    def __init__(self, application: Application, forms: dict[str, bytes], *, targets: bool) -> None:
        self._application = application
        self._forms = {application.server.atom(name): text for name, text in forms.items()}
        self._targets = targets
        self.window = application.connection.generate_id()
        application.core.CreateWindow(0, self.window, application.server.root, *(0, 0, 1, 1), 0,
                                      2, 0, xcffib.xproto.CW.OverrideRedirect, [1])  # fmt: skip
        self._atom = application.server.atom
        application.core.SetSelectionOwner(self.window, self._atom("CLIPBOARD"), 0)
        application.core.GetInputFocus().reply()

    def serve(self, times: int) -> list[int]:
        """Answer requests; returns what was asked for."""
        asked = []
        for _ in range(times):
            event = self._application.next(xcffib.xproto.SelectionRequestEvent)
            asked.append(event.target)
            kind, raw, size = event.target, self._forms.get(event.target), 8
            if event.target == self._atom("TARGETS") and self._targets:
                kind, size = self._atom("ATOM"), 32
                raw = struct.pack(f"={len(self._forms)}I", *self._forms)
            if raw is not None and raw.startswith(b"INCR"):
                kind, raw, size = self._atom("INCR"), struct.pack("=I", 99), 32
            place = event.property if raw is not None else 0
            if raw is not None:
                self._application.core.ChangeProperty(
                    0, event.requestor, place, kind, size, len(raw) * 8 // size, raw
                )
            fields = (event.time, event.requestor, event.selection, event.target, place)
            notice = struct.pack("=BxH5I8x", 31, 0, *fields)
            self._application.core.SendEvent(False, event.requestor, 0, notice)
            self._application.connection.flush()
        return asked


def test_no_owner_of_the_clipboard_is_an_empty_one(
    viewer: Watching, application: Application
) -> None:
    application.core.SetSelectionOwner(0, application.server.atom("CLIPBOARD"), 0)
    application.core.GetInputFocus().reply()
    viewer.send(ClipboardRequest(0x200007))
    viewer.next(ClipboardData)
    assert encode(viewer.heard[-1]).hex() == "8c0000000700200000000000"


@pytest.mark.parametrize(
    ("forms", "targets", "minor", "text"),
    [
        ({"STRING": b"latin", "UTF8_STRING": "żółw".encode()}, True, 8, "żółw".encode()),
        ({"STRING": b"latin"}, True, 8, b"latin"),
        ({"STRING": b"latin"}, False, 8, b"latin"),
        ({}, True, 8, b""),
        ({"UTF8_STRING": b"x" * 256_000}, True, 8, b"x" * 256_000),
        ({"UTF8_STRING": b"x" * 260_000}, True, 8, b"x" * 256_001),
        ({"UTF8_STRING": b"x" * 70_000}, True, 7, b"x" * 65_000),
    ],
)
def test_the_owners_text_is_sent(
    viewer: Watching,
    application: Application,
    *,
    forms: dict[str, bytes],
    targets: bool,
    minor: int,
    text: bytes,
) -> None:
    viewer.begin(minor)
    owner = Owner(application, forms, targets=targets)
    viewer.send(ClipboardRequest(7))
    assert len(owner.serve(2)) == 2
    assert viewer.next(ClipboardData) == ClipboardData(7, text)


def test_a_text_in_pieces_is_told_of_in_words(viewer: Watching, application: Application) -> None:
    owner = Owner(application, {"UTF8_STRING": b"INCR"}, targets=True)
    viewer.send(ClipboardRequest(7))
    owner.serve(2)
    assert b"not copied" in viewer.next(ClipboardData).data


def pasted(application: Application, window: int, target: str) -> tuple[str, bytes] | None:
    """What a program gets of the clipboard."""
    atom = application.server.atom
    for selection in ("PRIMARY", "CLIPBOARD"):
        application.core.ConvertSelection(window, atom(selection), atom(target), atom("HERE"), 0)
        application.connection.flush()
        notice = application.next(xcffib.xproto.SelectionNotifyEvent)
        if not notice.property:
            return None
    reply = application.core.GetProperty(True, window, atom("HERE"), 0, 0, 100_000).reply()
    name = application.core.GetAtomName(reply.type).reply()
    return bytes(name.name.raw).decode(), bytes(reply.value.raw)


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        (b"h\xc3\xa9llo", {"UTF8_STRING": b"h\xc3\xa9llo", "STRING": b"h\xe9llo",
                           "COMPOUND_TEXT": b"h\xe9llo"}),
        ("ż".encode(), {"UTF8_STRING": "ż".encode(), "STRING": b"?",
                        "COMPOUND_TEXT": b"\x1b%G\xc5\xbc\x1b%@"}),
        (b"a\tb\r\nc\n", {"UTF8_STRING": b"a\tb\r\nc\n"}),
        (b"one\0two", {"UTF8_STRING": b"one"}),
        (b"a\x1b[31m", {"UTF8_STRING": b"", "STRING": b"a\x1b[31m"}),
        (b"a\rb", {"UTF8_STRING": b""}),
        (b"\x7f", {"UTF8_STRING": b""}),
        (b"\xc0\xaf", {"UTF8_STRING": b""}),
    ],
)  # fmt: skip
def test_what_is_pasted_is_offered_to_programs(
    viewer: Watching, application: Application, text: bytes, forms: dict[str, bytes]
) -> None:
    window = application.window(b"pastes", Rect(10, 20, 300, 200), RED)
    viewer.next(Map)
    viewer.send(ClipboardData(window, text), Configure(window, 10, 20, 300, 200, 0))
    viewer.next(Configure)
    atom = application.server.atom
    found = pasted(application, window, "TARGETS")
    names = ("STRING", "TARGETS", "UTF8_STRING", "COMPOUND_TEXT")
    assert found == ("ATOM", struct.pack("=4I", *(atom(name) for name in names)))
    for target, expected in forms.items():
        assert pasted(application, window, target) == (target, expected)
    assert pasted(application, window, "image/png") is None


@pytest.mark.parametrize(("service", "left"), [(True, b""), (False, b"secret")])
def test_what_was_pasted_long_ago_is_wiped_where_that_is_wanted(
    qube_display: XServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: bool,
    left: bytes,
) -> None:
    monkeypatch.setenv("DISPLAY", qube_display.display)
    monkeypatch.setattr(guest_clipboard, "_KEPT", -1.0)
    if service:
        (tmp_path / "gui-agent-clipboard-wipe").touch()
    display = Display()
    clipboard = Clipboard(display, tmp_path, lambda _: None)
    clipboard.received(b"secret")
    display.connection.flush()
    application = Application(qube_display)
    window = application.connection.generate_id()
    application.core.CreateWindow(0, window, qube_display.root, 0, 0, 1, 1, 0, 2, 0, 0, [])
    atom = qube_display.atom
    application.core.ConvertSelection(
        window, atom("CLIPBOARD"), atom("UTF8_STRING"), atom("HERE"), 0
    )
    application.core.GetInputFocus().reply()

    def asked() -> Any:
        return next((one for one in display.events()
                     if isinstance(one, xcffib.xproto.SelectionRequestEvent)), None)  # fmt: skip

    clipboard.requested(wait_for(asked, "the request"))
    display.connection.flush()
    application.next(xcffib.xproto.SelectionNotifyEvent)
    assert qube_display.property(window, "HERE") == left
    application.connection.disconnect()
    display.connection.disconnect()


@pytest.mark.parametrize(
    ("name", "cursor"),
    [
        ("xterm", 0x198), ("X_cursor", 0x100), ("left_ptr", 0x144), ("text", 0x198),
        ("pointer", 0x13C), ("dnd-copy", 0x13C), ("wait", 0x196), ("ns-resize", 0x174),
        ("sw-resize", 0x10C), ("default", 0), ("a_shape_of_its_own", 0), ("", 0),
    ],
)  # fmt: skip
def test_cursors_by_their_names(name: str, cursor: int) -> None:
    assert glyph_of(name) == cursor


def test_the_cursor_of_the_window_under_the_pointer_is_told(
    viewer: Watching, application: Application
) -> None:
    library: Any = xcffib
    fixes = application.connection(library.xfixes.key)
    fixes.QueryVersion(4, 0).reply()
    application.server.run("xdotool", "mousemove", "1590", "1190")
    one = application.window(b"one", Rect(100, 100, 200, 100), RED)
    two = application.window(b"two", Rect(500, 100, 200, 100), RED)
    font, cursor = (application.connection.generate_id() for _ in range(2))
    application.core.OpenFont(font, 6, "cursor")
    application.core.CreateGlyphCursor(cursor, font, font, 152, 153, *(0, 0, 0), *(0, 0, 0))
    fixes.SetCursorName(cursor, 5, "xterm")
    for window in (one, two):
        application.core.ChangeWindowAttributes(window, xcffib.xproto.CW.Cursor, [cursor])
    application.core.GetInputFocus().reply()
    viewer.next(ShmImage, lambda message: message.window == two)
    for window in (one, two):  # the second one's is no other, and yet news to the viewer
        viewer.send(Crossing(window, 7, 20, 20, 0, 0, 0, 0), Motion(window, 21, 21, 0, 0))
        assert viewer.next(Cursor, lambda one: one.cursor != 0) == Cursor(window, 0x198)
    application.core.ChangeWindowAttributes(two, xcffib.xproto.CW.Cursor, [0])
    application.connection.flush()
    assert viewer.next(Cursor).window == two


def test_a_tray_icon_from_its_place_to_its_end(viewer: Watching, application: Application) -> None:
    window = tray_icon(application, RED)
    assert viewer.next(Dock) == Dock(window)
    own = [one for one in viewer.heard if one.window == window]
    assert isinstance(own[0], Create)
    assert own[-2] == Configure(window, 0, 0, 32, 32, 0)
    assert not any(isinstance(one, Map) for one in own)
    dump = viewer.next(WindowDump)
    viewer.next(ShmImage, lambda one: one.window == window)
    wait_for(lambda: viewer.pixel(dump, 16, 16) == RED, "the icon's pixels")
    embedded = application.next(xcffib.xproto.ClientMessageEvent)
    assert embedded.type == application.server.atom("_XEMBED")
    assert embedded.data.data32[1] == 0
    viewer.send(Configure(window, 700, 500, 24, 24, 0))
    assert viewer.next(Configure) == Configure(window, 700, 500, 24, 24, 0)
    wait_for(lambda: application.server.geometry(window) == Rect(700, 500, 24, 24), "its place")
    application.core.ConfigureWindow(window, 12, [90, 90])
    application.connection.flush()
    viewer.settle(application)
    wait_for(lambda: application.server.geometry(window) == Rect(700, 500, 24, 24), "its size")
    viewer.send(Button(window, 4, 5, 6, 0, 1), Button(window, 5, 5, 6, 0, 1))
    pressed = application.next(xcffib.xproto.ButtonPressEvent)
    assert (pressed.event_x, pressed.event_y, pressed.detail) == (5, 6, 1)
    application.core.DestroyWindow(window)
    application.connection.flush()
    assert viewer.next(Destroy) == Destroy(window)
    assert sum(isinstance(one, Create) and one.window == window for one in viewer.heard) == 1
    known = {one.window for one in viewer.heard if isinstance(one, Create)}
    assert {one.window for one in viewer.heard} <= known  # nothing of the embedder is told


def test_an_icon_is_docked_again_for_a_new_viewer(
    viewer: Watching, application: Application
) -> None:
    window = tray_icon(application, RED)
    viewer.next(Dock)
    viewer.begin()
    assert viewer.next(Dock) == Dock(window)
    viewer.next(ShmImage, lambda one: one.window == window)
    assert not any(isinstance(one, Map) and one.window == window for one in viewer.heard)


def test_an_icon_that_is_shown_already_is_hidden_before_it_is_docked(
    viewer: Watching, application: Application
) -> None:
    window = application.window(b"icon", Rect(40, 50, 30, 30), RED)
    viewer.next(Map)
    tray = application.core.GetSelectionOwner(application.server.atom("_NET_SYSTEM_TRAY_S0"))
    owner = tray.reply().owner
    opcode = application.server.atom("_NET_SYSTEM_TRAY_OPCODE")
    event = struct.pack("=BBHII5I", 33, 32, 0, owner, opcode, 0, 0, window, 0, 0)
    application.core.SendEvent(False, owner, 0, event)
    application.connection.flush()
    viewer.next(Dock)
    kinds = [type(one) for one in viewer.heard if one.window == window]
    assert kinds.index(Unmap) < kinds.index(Dock)
    assert kinds.count(Unmap) == 1


def test_an_icon_without_its_mark_is_hidden_within_its_place(
    viewer: Watching, application: Application
) -> None:
    window = tray_icon(application, RED, mapped=0)
    viewer.next(Dock)
    viewer.settle(application)
    assert not application.server.viewable(window)
    application.words(window, "_XEMBED_INFO", "_XEMBED_INFO", 0, 1)
    wait_for(lambda: application.server.viewable(window), "the icon")


def test_programs_hear_that_there_is_a_tray(qube_display: XServer, tmp_path: Path) -> None:
    application = Application(qube_display)
    mask = xcffib.xproto.EventMask.StructureNotify
    application.core.ChangeWindowAttributes(qube_display.root, xcffib.xproto.CW.EventMask, [mask])
    application.core.GetInputFocus().reply()
    with viewing(qube_display, tmp_path):
        message = application.next(xcffib.xproto.ClientMessageEvent)
    assert message.type == qube_display.atom("MANAGER")
    assert message.data.data32[1] == qube_display.atom("_NET_SYSTEM_TRAY_S0")
    application.connection.disconnect()
