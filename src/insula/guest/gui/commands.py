"""What the agent does for each message of the viewer (gui.md section 8.7)."""

from collections.abc import Callable
from typing import Any

from insula.guest.gui.clipboard import Clipboard
from insula.guest.gui.cursors import Cursors
from insula.guest.gui.display import Display
from insula.guest.gui.keyboard import Input
from insula.guest.gui.painter import Painter
from insula.guest.gui.window import Window
from insula.guest.gui.windows import STATES, Windows
from insula.guest.gui.xlib import xcffib
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.limits import MAX_HEIGHT, MAX_WIDTH
from insula.protocol.gui.messages import (
    Button,
    ClipboardData,
    ClipboardRequest,
    Close,
    Configure,
    Crossing,
    Destroy,
    Flag,
    Focus,
    KeymapNotify,
    KeyPress,
    Map,
    Motion,
    ViewerMessage,
    WindowDumpAck,
    WindowFlags,
)

_X = xcffib.xproto
_ENTER, _FOCUS_IN = 7, 9
_NOTIFY_NORMAL = 0


class Commands:
    """Applies messages; those that name an unknown window are late and mean nothing."""

    def __init__(
        self,
        display: Display,
        windows: Windows,
        painter: Painter,
        given: Input,
        *,
        clipboard: Clipboard,
        cursors: Cursors,
    ) -> None:
        self._display = display
        self._windows = windows
        self._painter = painter
        self._input = given
        self._clipboard = clipboard
        self._cursors = cursors
        self._for_window: dict[type, Callable[[Window, Any], None]] = {
            KeyPress: lambda _, message: given.key(message.type, message.keycode, message.state),
            Button: self._button,
            Motion: self._motion,
            Crossing: self._crossing,
            Focus: self._focus,
            Configure: self._configure,
            Map: self._map,
            Close: self._close,
            WindowFlags: self._flags,
        }

    def handle(self, message: ViewerMessage) -> None:
        """Apply one message."""
        match message:
            case WindowDumpAck():
                self._painter.acknowledged()
            case Destroy(identifier):
                self._painter.destroy_confirmed(identifier)
            case ClipboardRequest(identifier):
                self._clipboard.asked(identifier)
            case ClipboardData(_, text):
                self._clipboard.received(text)
            case KeymapNotify(_, keys):
                self._input.release_all_but(keys)
            case _:
                window = self._windows.get(message.window)
                apply = self._for_window.get(type(message))
                if window is not None and apply is not None:
                    apply(window, message)

    def _button(self, window: Window, message: Button) -> None:
        if window.embedder:
            self._raise(window.embedder)
        self._move_pointer(window, message.x, message.y)
        self._input.button(message.type, message.button)

    def _motion(self, window: Window, message: Motion) -> None:
        self._move_pointer(window, message.x, message.y)

    def _move_pointer(self, window: Window, x: int, y: int) -> None:
        self._input.motion(window.geometry.x + x, window.geometry.y + y)

    def _crossing(self, window: Window, message: Crossing) -> None:
        if message.mode != _NOTIFY_NORMAL:
            return
        core, stub = self._display.core, self._display.stub
        if message.type == _ENTER:
            core.UnmapWindow(stub)
            self._move_pointer(window, message.x, message.y)
            self._cursors.report(window)
            return
        pointer = core.QueryPointer(self._display.root).reply()
        if pointer.child == window.shown:
            # The application is to see a leave, though the pointer stays where it is.
            values = _X.ConfigWindow.X | _X.ConfigWindow.Y | _X.ConfigWindow.StackMode
            place = [pointer.root_x, pointer.root_y]
            core.ConfigureWindow(stub, values, [*place, _X.StackMode.Above])
            core.MapWindow(stub)

    def _focus(self, window: Window, message: Focus) -> None:
        core = self._display.core
        if message.type != _FOCUS_IN:
            if window.input_hint:
                core.SetInputFocus(_X.InputFocus._None, 0, 0)
            return
        self._raise(window.shown)
        if window.input_hint:
            core.SetInputFocus(_X.InputFocus.Parent, window.id, 0)
        if window.takes_focus:
            words = (self._display.atom("WM_TAKE_FOCUS"), 0)
            self._display.send_message(window.id, "WM_PROTOCOLS", words)

    def _raise(self, window: int) -> None:
        above = [_X.StackMode.Above]
        self._display.core.ConfigureWindow(window, _X.ConfigWindow.StackMode, above)

    def _configure(self, window: Window, message: Configure) -> None:
        """Move and resize, then acknowledge with what came of it, changed or not (section 5)."""
        core, mask = self._display.core, _X.ConfigWindow
        width = max(1, min(MAX_WIDTH, message.width))
        height = max(1, min(MAX_HEIGHT, message.height))
        all_of_it = mask.X | mask.Y | mask.Width | mask.Height
        core.ConfigureWindow(window.shown, all_of_it, [message.x, message.y, width, height])
        if window.embedder:
            core.ConfigureWindow(window.id, all_of_it, [0, 0, width, height])
        place = self._display.reply(core.GetGeometry(window.shown))
        if place is not None:
            geometry = Rect(place.x, place.y, place.width, place.height)
            self._windows.moved(window, geometry, acknowledge=True)

    def _map(self, window: Window, message: Map) -> None:
        core = self._display.core
        if not window.embedder:
            override = int(bool(message.override_redirect))
            core.ChangeWindowAttributes(window.id, _X.CW.OverrideRedirect, [override])
        core.MapWindow(window.id)

    def _close(self, window: Window, _message: Close) -> None:
        if window.deletes:
            words = (self._display.atom("WM_DELETE_WINDOW"), 0)
            self._display.send_message(window.id, "WM_PROTOCOLS", words)
        else:
            self._display.core.KillClient(window.id)

    def _flags(self, window: Window, message: WindowFlags) -> None:
        """Write into _NET_WM_STATE what the window manager granted."""
        atoms = list(self._display.words(window.id, "_NET_WM_STATE"))
        for name, flag in STATES.items():
            atom = self._display.atom(name)
            if Flag(message.flags_set) & flag and atom not in atoms:
                atoms.append(atom)
            if Flag(message.flags_unset) & flag and atom in atoms:
                atoms.remove(atom)
        self._display.set_words(window.id, "_NET_WM_STATE", "ATOM", tuple(atoms))
