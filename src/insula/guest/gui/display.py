"""The qube's X server: connection, atoms, properties, and this agent's part as window manager."""

import os
import struct
import time
from typing import Any

from insula.guest.gui.shm import Segment
from insula.guest.gui.xlib import xcffib

_CONNECT_TIMEOUT = 120.0  # seconds an X server may take to start
_CONNECT_PAUSE = 0.2
_MAX_PROPERTY = 4096  # 32-bit units; nothing that is forwarded is longer
_ANY_TYPE = 0

_X = xcffib.xproto
_SUPPORTED = (
    "_NET_SUPPORTED",
    "_NET_SUPPORTING_WM_CHECK",
    "_NET_WM_MOVERESIZE",
    "_NET_WM_STATE",
    "_NET_WM_STATE_FULLSCREEN",
    "_NET_WM_STATE_DEMANDS_ATTENTION",
    "_NET_WM_STATE_HIDDEN",
)


class Display:
    """A connection whose errors mean no more than that a window is already gone."""

    def __init__(self) -> None:
        self.connection = _connected()
        self.core = self.connection.core
        setup = self.connection.get_setup()
        self.number: int = self.connection.pref_screen
        self.screen = setup.roots[self.number]
        self.root: int = self.screen.root
        self.composite = self.connection(xcffib.composite.key)
        self.damage = self.connection(xcffib.damage.key)
        self.xfixes = self.connection(xcffib.xfixes.key)
        self.shm = self.connection(xcffib.shm.key)
        self.xtest = self.connection(xcffib.xtest.key)
        self.segment = Segment(self.connection)
        self._atoms: dict[str, int] = {}
        self.stub = self._window_manager()

    def reply(self, cookie: Any) -> Any:
        """The answer to a request; None when the X server refused it."""
        try:
            return cookie.reply()
        except xcffib.ConnectionException:
            raise
        except (xcffib.XcffibException, LookupError):
            return None

    def events(self) -> list[Any]:
        """All events that have come; errors among them are dropped."""
        out: list[Any] = []
        while True:
            try:
                event = self.connection.poll_for_event()
            except xcffib.ConnectionException:
                raise
            except (xcffib.XcffibException, LookupError):
                continue
            if event is None:
                return out
            out.append(event)

    def atom(self, name: str) -> int:
        """The number of an atom."""
        if name not in self._atoms:
            reply = self.core.InternAtom(False, len(name), name).reply()
            self._atoms[name] = reply.atom
        return self._atoms[name]

    def property(self, window: int, name: str) -> bytes | None:
        """The bytes of a property; None without it. 32-bit items are native words."""
        cookie = self.core.GetProperty(False, window, self.atom(name), _ANY_TYPE, 0, _MAX_PROPERTY)
        reply = self.reply(cookie)
        if reply is None or reply.format == 0:
            return None
        return bytes(reply.value.raw)

    def words(self, window: int, name: str) -> tuple[int, ...]:
        """A property of 32-bit items; empty without it."""
        raw = self.property(window, name) or b""
        return struct.unpack_from(f"={len(raw) // 4}I", raw)

    def set_words(self, window: int, name: str, kind: str, words: tuple[int, ...]) -> None:
        """Write a property of 32-bit items."""
        raw = struct.pack(f"={len(words)}I", *words)
        self.core.ChangeProperty(
            _X.PropMode.Replace, window, self.atom(name), self.atom(kind), 32, len(words), raw
        )

    def long_property(self, window: int, name: str, longest: int) -> tuple[int, bytes] | None:
        """Type and first bytes of a property; None without it."""
        cookie = self.core.GetProperty(
            False, window, self.atom(name), _ANY_TYPE, 0, longest // 4 + 1
        )
        reply = self.reply(cookie)
        return None if reply is None or not reply.format else (reply.type, bytes(reply.value.raw))

    def send_message(
        self, window: int, name: str, words: tuple[int, ...], *, mask: int = 0
    ) -> None:
        """Send a client message to a window's client, or to those who listen for mask."""
        padded = (*words, 0, 0, 0, 0, 0)[:5]
        event = struct.pack("=BBHII5I", 33, 32, 0, window, self.atom(name), *padded)
        self.core.SendEvent(False, window, mask, event)

    def _window_manager(self) -> int:
        """Redirect and watch all top-level windows; returns the stub window."""
        self.composite.QueryVersion(0, 4).reply()
        self.damage.QueryVersion(1, 1).reply()
        self.xfixes.QueryVersion(4, 0).reply()
        self.xtest.GetVersion(2, 2).reply()
        self.composite.RedirectSubwindows(self.root, xcffib.composite.Redirect.Automatic)
        stub: int = self.connection.generate_id()
        self.core.CreateWindow(
            0, stub, self.root, -1, -1, 1, 1, 0, _X.WindowClass.InputOnly, 0,
            _X.CW.OverrideRedirect, [1],
        )  # fmt: skip
        self.set_words(stub, "_NET_SUPPORTING_WM_CHECK", "WINDOW", (stub,))
        self.set_words(self.root, "_NET_SUPPORTING_WM_CHECK", "WINDOW", (stub,))
        atoms = tuple(self.atom(name) for name in _SUPPORTED)
        self.set_words(self.root, "_NET_SUPPORTED", "ATOM", atoms)
        name = b"Qubes"
        self.core.ChangeProperty(
            _X.PropMode.Replace, stub, self.atom("_NET_WM_NAME"), self.atom("UTF8_STRING"), 8,
            len(name), name,
        )  # fmt: skip
        self.core.ChangeKeyboardControl(_X.KB.AutoRepeatMode, [_X.AutoRepeatMode.Off])
        self.core.ChangeWindowAttributes(
            self.root, _X.CW.EventMask,
            [_X.EventMask.SubstructureNotify],
        )  # fmt: skip
        return stub


def _connected() -> Any:
    """A connection to DISPLAY, which may be starting.

    Raises:
        xcffib.ConnectionException: there is none within _CONNECT_TIMEOUT.
    """
    deadline = time.monotonic() + _CONNECT_TIMEOUT
    while True:
        try:
            return xcffib.connect(display=os.environ.get("DISPLAY", ":0"))
        except xcffib.ConnectionException:
            if time.monotonic() > deadline:
                raise
            time.sleep(_CONNECT_PAUSE)
