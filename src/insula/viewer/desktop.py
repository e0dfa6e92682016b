"""The person's X server as a viewer sees it: connection, atoms, root window and work area."""

import struct
from typing import Any

from insula.protocol.gui.geometry import Rect
from insula.viewer.xlib import xcffib

_X = xcffib.xproto
_MAX_PROPERTY = 65_536  # 32-bit units
_USER_TIME_WINDOW = "_NET_WM_USER_TIME_WINDOW"
_MAX_WORK = 1 << 20  # pixels; larger values of a work area are nonsense
_TOLERATED = (_X.WindowError, _X.DrawableError, _X.MatchError)


class DesktopError(Exception):
    """The X server cannot be used; the text says why."""


class Desktop:
    """A connection given as a descriptor, for a screen of 24-bit true colour."""

    def __init__(self, descriptor: int, authority: tuple[bytes, bytes] | None) -> None:
        """Greet the X server; authority is the name and data of its access control.

        Raises:
            DesktopError: it refused, or its screen is of another kind.
        """
        self.connection = _connected(descriptor, authority)
        self.core = self.connection.core
        self.screen = self.connection.get_setup().roots[0]
        self.root: int = self.screen.root
        self.depth: int = self.screen.root_depth
        if self.depth != 24:
            raise DesktopError(f"the screen has {self.depth} bits a pixel, viewers need 24")
        self._atoms: dict[str, int] = {}
        self.size = Rect(0, 0, self.screen.width_in_pixels, self.screen.height_in_pixels)
        self.work = self.size
        mask = _X.EventMask.PropertyChange | _X.EventMask.StructureNotify
        self.core.ChangeWindowAttributes(self.root, _X.CW.EventMask, [mask])
        self.context: int = self.connection.generate_id()
        self.core.CreateGC(self.context, self.root, _X.GC.GraphicsExposures, [0])
        self.read_work_area()
        self.user_time_window = self._make_user_time_window()

    def keycodes(self, keysyms: list[int]) -> list[int]:
        """The key of each keysym, as XKeysymToKeycode finds it; 0 where no key has it."""
        setup = self.connection.get_setup()
        first, last = setup.min_keycode, setup.max_keycode
        mapping = self.core.GetKeyboardMapping(first, last - first + 1).reply()
        per, symbols = mapping.keysyms_per_keycode, list(mapping.keysyms)
        out = []
        for keysym in keysyms:
            at = [place for place, one in enumerate(symbols) if one == keysym]
            place = min(at, key=lambda place: (place % per, place), default=None)
            out.append(0 if place is None else first + place // per)
        return out

    def events(self) -> list[Any]:
        """All events that have come; errors about windows that others destroyed are dropped.

        Raises:
            DesktopError: the X server refused something else.
        """
        out: list[Any] = []
        while True:
            try:
                event = self.connection.poll_for_event()
            except _TOLERATED:
                continue
            except xcffib.ConnectionException:
                raise
            except (xcffib.XcffibException, LookupError) as error:
                raise DesktopError(f"the X server refused a request: {error!r}") from error
            if event is None:
                return out
            out.append(event)

    def reply(self, cookie: Any) -> Any:
        """The answer to a request; None when its window is gone."""
        try:
            return cookie.reply()
        except _TOLERATED:
            return None

    def atom(self, name: str) -> int:
        """The number of an atom."""
        if name not in self._atoms:
            reply = self.core.InternAtom(False, len(name), name).reply()
            self._atoms[name] = reply.atom
        return self._atoms[name]

    def words(self, window: int, name: str) -> tuple[int, ...] | None:
        """A property of 32-bit items; None without it."""
        reply = self.reply(
            self.core.GetProperty(False, window, self.atom(name), 0, 0, _MAX_PROPERTY)
        )
        if reply is None or reply.format != 32:
            return None
        raw = bytes(reply.value.raw)
        return struct.unpack(f"={len(raw) // 4}I", raw)

    def text(self, window: int, name: str) -> bytes:
        """A property of bytes; empty without it."""
        reply = self.reply(
            self.core.GetProperty(False, window, self.atom(name), 0, 0, _MAX_PROPERTY)
        )
        return b"" if reply is None or reply.format != 8 else bytes(reply.value.raw)

    def set_words(self, window: int, name: str, kind: str, words: tuple[int, ...]) -> None:
        """Write a property of 32-bit items."""
        raw = struct.pack(f"={len(words)}I", *words)
        self.core.ChangeProperty(
            _X.PropMode.Replace, window, self.atom(name), self.atom(kind), 32, len(words), raw
        )

    def set_text(self, window: int, name: str, kind: str, text: bytes) -> None:
        """Write a property of bytes."""
        self.core.ChangeProperty(
            _X.PropMode.Replace, window, self.atom(name), self.atom(kind), 8, len(text), text
        )

    def ask_window_manager(self, window: int, name: str, words: tuple[int, ...]) -> None:
        """Send a client message about a window to the root."""
        mask = _X.EventMask.SubstructureRedirect | _X.EventMask.SubstructureNotify
        self.send_message(self.root, window, name, words, mask=mask)

    def send_message(
        self, to: int, window: int, name: str, words: tuple[int, ...], *, mask: int = 0
    ) -> None:
        """Send a client message about a window to another's client, or to who listens for mask."""
        padded = (*words, 0, 0, 0, 0, 0)[:5]
        event = struct.pack("=BBHII5I", 33, 32, 0, window, self.atom(name), *padded)
        self.core.SendEvent(False, to, mask, event)

    def note_user_time(self, window: int, time: int) -> None:
        """Tell the window manager that the person did something in a qube's window."""
        self.set_words(
            self.user_time_window or window, "_NET_WM_USER_TIME", "CARDINAL", (time & 0xFFFF_FFFF,)
        )

    def _make_user_time_window(self) -> int:
        """One place for the time of all windows of the qube, or 0 where it would not be looked at.

        A window that is new has the time of the others by it: it gets the focus only if the
        person did something in one of them last.
        """
        if self.atom(_USER_TIME_WINDOW) not in (self.words(self.root, "_NET_SUPPORTED") or ()):
            return 0
        window: int = self.connection.generate_id()
        self.core.CreateWindow(
            0, window, self.root, -2, -2, 1, 1, 0, _X.WindowClass.InputOnly, 0,
            _X.CW.OverrideRedirect, [1],
        )  # fmt: skip
        return window

    def describe_user_time(self, window: int) -> None:
        """Say of a window where its user time is."""
        if self.user_time_window:
            self.set_words(window, _USER_TIME_WINDOW, "WINDOW", (self.user_time_window,))

    def answer_ping(self, words: tuple[int, ...]) -> None:
        """Answer the window manager's _NET_WM_PING, whose five words these are."""
        self.ask_window_manager(self.root, "WM_PROTOCOLS", words)

    def read_work_area(self) -> None:
        """Learn what of the screen panels leave free (section 7.2); nonsense changes nothing."""
        current = self.words(self.root, "_NET_CURRENT_DESKTOP")
        areas = self.words(self.root, "_NET_WORKAREA")
        if not current or not areas:
            self.work = self.size
            return
        area = areas[4 * current[0] : 4 * current[0] + 4]
        if len(area) == 4 and max(area) <= _MAX_WORK and area[2] and area[3]:
            self.work = Rect(*area)

    def resized(self, width: int, height: int) -> None:
        """The root window has another size."""
        self.size = Rect(0, 0, width, height)
        self.read_work_area()


def _connected(descriptor: int, authority: tuple[bytes, bytes] | None) -> Any:
    ffi = xcffib.ffi
    given = ffi.NULL
    if authority is not None:
        name, data = (ffi.new("char[]", part) for part in authority)
        given = ffi.new("xcb_auth_info_t *")
        given.name, given.namelen = name, len(authority[0])
        given.data, given.datalen = data, len(authority[1])
    pointer = xcffib.lib.xcb_connect_to_fd(descriptor, given)
    try:
        return xcffib.wrap(pointer)
    except xcffib.XcffibException as error:
        raise DesktopError(f"no connection to the X server: {error}") from error
