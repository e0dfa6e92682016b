"""A program in a qube that does to its X server what a test wants."""

import struct
from typing import Any

import xcffib
import xcffib.xproto

from insula.protocol.gui.geometry import Rect
from tests.desktop.joined import XServer, wait_for


class Application:
    """A program in the qube that draws plain windows and notes their events."""

    def __init__(self, server: XServer) -> None:
        library: Any = xcffib
        self.server = server
        self.connection: Any = library.connect(display=server.display)
        self.core: Any = self.connection.core

    def window(self, title: bytes, rect: Rect, colour: int, *, override: bool = False) -> int:
        """Create and map a window."""
        window: int = self.connection.generate_id()
        mask = xcffib.xproto.CW
        self.core.CreateWindow(
            0, window, self.server.root, *rect, 0, xcffib.xproto.WindowClass.InputOutput, 0,
            mask.BackPixel | mask.OverrideRedirect | mask.EventMask,
            [colour, int(override), 0x2807F],
        )  # fmt: skip
        self.property(window, "_NET_WM_NAME", "UTF8_STRING", title)
        self.core.MapWindow(window)
        self.connection.flush()
        return window

    def property(self, window: int, name: str, kind: str, value: bytes, size: int = 8) -> None:
        atoms = self.server.atom(name), self.server.atom(kind)
        self.core.ChangeProperty(0, window, *atoms, size, len(value) * 8 // size, value)
        self.connection.flush()

    def words(self, window: int, name: str, kind: str, *words: int) -> None:
        self.property(window, name, kind, struct.pack(f"={len(words)}I", *words), 32)

    def next(self, kind: type) -> Any:
        """Wait for an event of a kind."""

        def poll() -> Any:
            while (event := self.connection.poll_for_event()) is not None:
                if isinstance(event, kind):
                    return event
            return None

        return wait_for(poll, kind.__name__)


def tray_icon(application: Application, colour: int, *, mapped: int = 1) -> int:
    """A program's tray icon, which asks for its place."""
    server = application.server
    tray = wait_for(
        lambda: (
            application.core.GetSelectionOwner(server.atom("_NET_SYSTEM_TRAY_S0")).reply().owner
        ),
        "a tray",
    )
    window: int = application.connection.generate_id()
    mask = xcffib.xproto.CW
    application.core.CreateWindow(
        0, window, server.root, 0, 0, 22, 22, 0, 1, 0,
        mask.BackPixel | mask.EventMask, [colour, 0x2807F],
    )  # fmt: skip
    application.words(window, "_XEMBED_INFO", "_XEMBED_INFO", 0, mapped)
    opcode = server.atom("_NET_SYSTEM_TRAY_OPCODE")
    event = struct.pack("=BBHII5I", 33, 32, 0, tray, opcode, 0, 0, window, 0, 0)
    application.core.SendEvent(False, tray, 0, event)
    application.connection.flush()
    return window
