"""The person's input and the window manager's acts, as messages for the qube (section 7.3)."""

from collections.abc import Callable
from typing import Any

from insula.protocol.gui.geometry import Rect, confined
from insula.protocol.gui.messages import (
    Button,
    Close,
    Crossing,
    Focus,
    KeymapNotify,
    KeyPress,
    Map,
    Motion,
    ViewerMessage,
    WindowFlags,
)
from insula.protocol.viewing import IN_FRONT
from insula.viewer.clipboard import Clipboard
from insula.viewer.desktop import Desktop
from insula.viewer.window import Window
from insula.viewer.windows import Windows
from insula.viewer.xlib import xcffib

_X = xcffib.xproto
_PRESS, _RELEASE = 2, 3
_BUTTON_PRESS, _BUTTON_RELEASE = 4, 5
_ENTER, _LEAVE = 7, 8
_FOCUS_IN, _FOCUS_OUT = 9, 10
_NORMAL = 0
_GRABS = (1, 2)  # NotifyGrab, NotifyUngrab: the window manager's, not the qube's business
_INFERIOR = 2
_NONLINEAR = 3  # a detail
_CROSSING_FOCUS = 1
_EMBEDDED_NOTIFY, _XEMBED_FOCUS_IN = 0, 4
_SYNTHETIC = 0x80
_INPUT_EVENTS = frozenset(
    {_X.KeyPressEvent, _X.KeyReleaseEvent, _X.ButtonPressEvent, _X.ButtonReleaseEvent}
)


class Input:
    """Looks at X events of the qube's windows only; grabs nothing."""

    def __init__(
        self,
        desktop: Desktop,
        windows: Windows,
        clipboard: Clipboard,
        send: Callable[[ViewerMessage], None],
    ) -> None:
        self._desktop = desktop
        self._windows = windows
        self._clipboard = clipboard
        self._send = send
        self._forwarded = bytearray(32)  # keys whose press this qube saw and whose release not
        self._focused: int | None = None  # the frame that has the focus, or had it at its end
        self._handlers: dict[type, Callable[[Any], None]] = {
            _X.KeyPressEvent: self._key,
            _X.KeyReleaseEvent: self._key,
            _X.ButtonPressEvent: self._button,
            _X.ButtonReleaseEvent: self._button,
            _X.MotionNotifyEvent: self._motion,
            _X.EnterNotifyEvent: self._crossing,
            _X.LeaveNotifyEvent: self._crossing,
            _X.FocusInEvent: self._focus,
            _X.FocusOutEvent: self._focus,
            _X.ConfigureNotifyEvent: self._configured,
            _X.MapNotifyEvent: self._mapped,
            _X.ExposeEvent: self._exposed,
            _X.ReparentNotifyEvent: self._reparented,
            _X.DestroyNotifyEvent: self._destroyed,
            _X.PropertyNotifyEvent: self._property_changed,
            _X.ClientMessageEvent: self._client_message,
            _X.MappingNotifyEvent: lambda _: clipboard.keyboard_changed(),
        }

    def handle(self, event: Any) -> None:
        """Take one X event."""
        kind = type(event)
        if event.response_type & _SYNTHETIC and kind in _INPUT_EVENTS:
            return  # made by another client; the person did nothing
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(event)

    def settle(self) -> None:
        """After a batch of events: look where the windows that moved are now (section 5)."""
        for window in self._windows.all():
            if not window.moved:
                continue
            window.moved = False
            rect = window.local_rect()
            if rect is None or rect == window.rect:
                continue
            resized = rect[2:] != window.rect[2:]
            window.rect = rect
            if window.override:
                self._confine(window)
            if resized:
                window.fit_content()
            self._windows.send_geometry(window)

    def _confine(self, window: Window) -> None:
        rect = confined(window.rect, self._desktop.size, self._desktop.work)
        if rect != window.rect:
            window.place(rect)

    def _key(self, event: Any) -> None:
        window = self._windows.local(event.event)
        if window is None:
            return
        pressed = isinstance(event, _X.KeyPressEvent)
        self._desktop.note_user_time(window.frame, event.time)
        if self._clipboard.takes(window.id, event.detail, event.state, event.time, pressed=pressed):
            return
        self._remember_key(event.detail, pressed)
        x, y = event.event_x - window.offset, event.event_y - window.offset
        kind = _PRESS if pressed else _RELEASE
        self._send(KeyPress(window.id, kind, x, y, event.state, event.detail))

    def _remember_key(self, keycode: int, pressed: bool) -> None:
        bit = 1 << keycode % 8
        if pressed:
            self._forwarded[keycode // 8] |= bit
        else:
            self._forwarded[keycode // 8] &= ~bit

    def _button(self, event: Any) -> None:
        window = self._windows.local(event.event)
        if window is None:
            return
        self._desktop.note_user_time(window.frame, event.time)
        kind = _BUTTON_PRESS if isinstance(event, _X.ButtonPressEvent) else _BUTTON_RELEASE
        if window.docked and kind == _BUTTON_PRESS:
            revert = _X.InputFocus.Parent
            self._desktop.core.SetInputFocus(revert, window.frame, event.time)
        self._send(Button(window.id, kind, event.event_x, event.event_y, event.state, event.detail))

    def _motion(self, event: Any) -> None:
        window = self._windows.local(event.event)
        if window is not None:
            self._send(Motion(window.id, event.event_x, event.event_y, event.state, 0))

    def _crossing(self, event: Any) -> None:
        window = self._windows.local(event.event)
        if window is None or event.detail == _INFERIOR:
            return
        enters = isinstance(event, _X.EnterNotifyEvent)
        if enters:
            focused = self._focused is not None and self._windows.local(self._focused) is not None
            self._send_keymap(only_forwarded=not focused)
        if window.docked:
            self._report_place(window)
        has_focus = event.same_screen_focus & _CROSSING_FOCUS
        self._send(
            Crossing(
                window.id,
                _ENTER if enters else _LEAVE,
                event.event_x,
                event.event_y,
                event.state,
                event.mode,
                event.detail,
                has_focus,
            )
        )

    def _focus(self, event: Any) -> None:
        window = self._windows.local(event.event)
        if window is None or event.mode in _GRABS:
            return
        if isinstance(event, _X.FocusInEvent):
            self._focused = window.frame
            self._send_keymap(only_forwarded=False)
            self._send(Focus(window.id, _FOCUS_IN, _NORMAL, event.detail))
        else:
            if self._focused == window.frame:
                self._focused = None
            self._send(Focus(window.id, _FOCUS_OUT, _NORMAL, event.detail))

    def _send_keymap(self, *, only_forwarded: bool) -> None:
        """Say which keys are down; without the focus only those that this qube saw pressed."""
        keys = bytes(self._desktop.core.QueryKeymap().reply().keys)
        held = bytes(down & seen for down, seen in zip(keys, self._forwarded, strict=True))
        self._forwarded[:] = held
        self._send(KeymapNotify(0, held if only_forwarded else keys))

    def _configured(self, event: Any) -> None:
        if event.window == self._desktop.root:
            self._desktop.resized(event.width, event.height)
            return
        window = self._windows.local(event.window)
        if window is not None and event.window == window.frame:
            window.local_size = (event.width, event.height)
            window.moved = True

    def _report_place(self, window: Window) -> None:
        """Tell where an icon is now; no event says that its tray has moved."""
        rect = window.local_rect()
        if rect is not None and rect != window.rect:
            window.rect = rect
            window.fit_content()
            self._windows.send_geometry(window)

    def _reparented(self, event: Any) -> None:
        """An icon that falls out of its tray must not become a window without a frame."""
        window = self._windows.local(event.window)
        if window is not None and window.docked and event.parent == self._desktop.root:
            window.hide()

    def _destroyed(self, event: Any) -> None:
        window = self._windows.local(event.window)
        if window is not None and window.docked and event.window == window.frame:
            self._windows.renew(window)

    def _mapped(self, event: Any) -> None:
        """The window manager mapped a window that the qube has hidden: tell, or undo it."""
        window = self._windows.local(event.window)
        if window is None or window.mapped or event.window != window.frame:
            return
        attributes = self._desktop.reply(self._desktop.core.GetWindowAttributes(window.frame))
        if attributes is None:
            return
        if attributes.map_state == _X.MapState.Viewable:
            window.mapped = True
            self._send(Map(window.id, 0, int(window.override)))
        elif not window.docked:
            window.hide()
        if window.docked:
            self._report_place(window)

    def _exposed(self, event: Any) -> None:
        window = self._windows.local(event.window)
        if window is not None and event.window == window.content:
            at = window.content_offset()
            window.add_dirty(Rect(event.x + at, event.y + at, event.width, event.height))

    def _property_changed(self, event: Any) -> None:
        if event.window == self._desktop.root:
            names = ("_NET_WORKAREA", "_NET_CURRENT_DESKTOP")
            if event.atom in [self._desktop.atom(name) for name in names]:
                self._desktop.read_work_area()
            elif event.atom == self._desktop.atom(IN_FRONT):
                self._windows.keep_behind()
            return
        window = self._windows.local(event.window)
        if window is None or not window.mapped:
            return
        if event.atom == self._desktop.atom("_NET_WM_STATE"):
            granted, taken = self._windows.states.changed(window)
            if granted or taken:
                self._send(WindowFlags(window.id, int(granted), int(taken)))

    def _client_message(self, event: Any) -> None:
        if self._windows.tray.is_manager(event):
            self._windows.dock_again()
        window = self._windows.local(event.window)
        if window is not None and event.type == self._desktop.atom("_XEMBED"):
            self._embedder_says(window, event.data.data32[1])
        if window is None or event.type != self._desktop.atom("WM_PROTOCOLS"):
            return
        asked = event.data.data32[0]
        if asked == self._desktop.atom("WM_DELETE_WINDOW"):
            self._send(Close(window.id))
        elif asked == self._desktop.atom("_NET_WM_PING"):
            words = tuple(event.data.data32[:5])
            self._desktop.answer_ping(words)

    def _embedder_says(self, window: Window, what: int) -> None:
        """A message of XEMBED: the icon has its place, or the focus."""
        if not window.docked:
            return
        if what == _EMBEDDED_NOTIFY:
            window.show()
            self._report_place(window)
        elif what == _XEMBED_FOCUS_IN:
            self._send_keymap(only_forwarded=False)
            self._send(Focus(window.id, _FOCUS_IN, _NORMAL, _NONLINEAR))
