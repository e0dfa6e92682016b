"""The qube's system tray: programs' icons, each in a window of ours that is shown (gui.md 10.1)."""

from typing import Any

from insula.guest.gui.display import Display
from insula.guest.gui.windows import Windows
from insula.guest.gui.xlib import xcffib

_X = xcffib.xproto
_REQUEST_DOCK = 0


class Tray:
    """Owns the tray's selection, by the stub window."""

    def __init__(self, display: Display, windows: Windows) -> None:
        self._display = display
        self._windows = windows
        selection = display.atom(f"_NET_SYSTEM_TRAY_S{display.number}")
        display.core.SetSelectionOwner(display.stub, selection, 0)
        words = (0, selection, display.stub, 0, 0)
        mask = _X.EventMask.StructureNotify
        display.send_message(display.root, "MANAGER", words, mask=mask)

    def asked(self, event: Any) -> None:
        """A message to the tray: a program wants its icon shown."""
        if event.format != 32 or event.type != self._display.atom("_NET_SYSTEM_TRAY_OPCODE"):
            return
        _, opcode, icon = event.data.data32[:3]
        if opcode == _REQUEST_DOCK:
            self._windows.dock(icon)
