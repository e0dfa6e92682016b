"""Full screen, attention and minimised: wishes of the qube, grants of the window manager (6.7)."""

from insula.protocol.gui.messages import Flag
from insula.viewer.desktop import Desktop
from insula.viewer.window import Window

_REMOVE, _ADD = 0, 1
_FROM_APPLICATION = 1  # source indication of a client message
_ICONIC = 3
_FULL = "_NET_WM_STATE_FULLSCREEN"
_ATTENTION = "_NET_WM_STATE_DEMANDS_ATTENTION"
_HIDDEN = "_NET_WM_STATE_HIDDEN"
_MAXIMISED = ("_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ")


class States:
    """Turns WINDOW_FLAGS into what the window manager understands, and back."""

    def __init__(self, desktop: Desktop, *, allow_fullscreen: bool) -> None:
        self._desktop = desktop
        self._allow_fullscreen = allow_fullscreen

    def wish(self, window: Window, wanted: Flag, unwanted: Flag) -> None:
        """Apply what the qube asks for."""
        if not window.mapped:
            self._write(window, wanted)
            return
        if wanted & Flag.MINIMIZE:
            words = (_ICONIC,)
            self._desktop.ask_window_manager(window.frame, "WM_CHANGE_STATE", words)
            wanted &= ~Flag.FULLSCREEN
        if wanted & Flag.DEMANDS_ATTENTION:
            self._ask(window, _ADD, _ATTENTION)
        if wanted & Flag.FULLSCREEN:
            if self._allow_fullscreen:
                self._ask(window, _ADD, _FULL)
            else:
                self._ask(window, _ADD, *_MAXIMISED)
                window.converted = True
        if unwanted & Flag.FULLSCREEN:
            if self._allow_fullscreen or not window.converted:
                self._ask(window, _REMOVE, _FULL)
            else:
                self._ask(window, _REMOVE, *_MAXIMISED)
                window.converted = False

    def changed(self, window: Window) -> tuple[Flag, Flag]:
        """What the window manager granted and took since the last call."""
        atoms = self._desktop.words(window.frame, "_NET_WM_STATE") or ()
        on = {name for name in (_FULL, _ATTENTION, _HIDDEN, *_MAXIMISED)
              if self._desktop.atom(name) in atoms}  # fmt: skip
        now = Flag(0)
        if _FULL in on:
            now |= Flag.FULLSCREEN
            window.converted = False
        elif window.converted and on.issuperset(_MAXIMISED):
            now |= Flag.FULLSCREEN
        if _ATTENTION in on:
            now |= Flag.DEMANDS_ATTENTION
        if _HIDDEN in on:
            now |= Flag.MINIMIZE
        old, window.states = window.states, now
        return now & ~old, old & ~now

    def _write(self, window: Window, wanted: Flag) -> None:
        """Replace the property of a window that the window manager does not know yet."""
        names: list[str] = []
        window.converted = False
        if wanted & Flag.FULLSCREEN:
            window.converted = not self._allow_fullscreen
            names += [_FULL] if self._allow_fullscreen else _MAXIMISED
        if wanted & Flag.DEMANDS_ATTENTION:
            names.append(_ATTENTION)
        if wanted & Flag.MINIMIZE:
            names.append(_HIDDEN)
        atoms = tuple(self._desktop.atom(name) for name in names)
        if atoms:
            self._desktop.set_words(window.frame, "_NET_WM_STATE", "ATOM", atoms)
        else:
            atom = self._desktop.atom("_NET_WM_STATE")
            self._desktop.core.DeleteProperty(window.frame, atom)

    def _ask(self, window: Window, action: int, *names: str) -> None:
        atoms = (*(self._desktop.atom(name) for name in names), 0)[:2]
        words = (action, *atoms, _FROM_APPLICATION)
        self._desktop.ask_window_manager(window.frame, "_NET_WM_STATE", words)
