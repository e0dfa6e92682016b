"""Says on the X server which window no qube's may cover; viewers keep theirs below it."""

import struct
from typing import Any

import xcffib
import xcffib.xproto
from PySide6.QtCore import QObject, QTimer
from PySide6.QtWidgets import QWidget

from insula.protocol.viewing import IN_FRONT

_AGAIN = 250  # milliseconds; a window manager takes its time to put a window into a frame


class InFront(QObject):
    """For one window at a time; without an X server there is nobody to tell."""

    def __init__(self) -> None:
        super().__init__()
        self._window: QWidget | None = None
        self._timer = QTimer(self, interval=_AGAIN)
        self._timer.timeout.connect(self._tell)
        library: Any = xcffib  # it comes without types
        try:
            self._connection: Any = library.connect()
        except library.ConnectionException:
            self._connection = None
            return
        core = self._connection.core
        self._root = self._connection.get_setup().roots[self._connection.pref_screen].root
        self._atom = core.InternAtom(False, len(IN_FRONT), IN_FRONT).reply().atom

    def keep(self, window: QWidget) -> None:
        """Have a window in front, from now until it is let go."""
        if self._connection is not None:
            self._window = window
            self._tell()
            self._timer.start()

    def let_go(self) -> None:
        """The window is gone."""
        self._timer.stop()
        self._window = None
        self._write()

    def _tell(self) -> None:
        if self._window is not None:
            self._window.raise_()
            self._write(int(self._window.winId()))

    def _write(self, *windows: int) -> None:
        if self._connection is None or self._connection.invalid():
            return
        raw = struct.pack(f"={len(windows)}I", *windows)
        kind = xcffib.xproto.Atom.WINDOW
        # On the window, too: after a crash the number on the root may become that of another.
        for place in (*windows, self._root):
            self._connection.core.ChangeProperty(0, place, self._atom, kind, 32, len(windows), raw)
        self._connection.flush()
