"""From X events of the qube to messages for the viewer (gui.md section 8.3)."""

from collections.abc import Callable, Iterator
from typing import Any

from insula.guest.gui.display import Display
from insula.guest.gui.hints import size_hints
from insula.guest.gui.window import Window
from insula.guest.gui.xlib import xcffib
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.limits import CLASS_SIZE, TITLE_SIZE
from insula.protocol.gui.messages import (
    AgentMessage,
    Configure,
    Create,
    Destroy,
    Dock,
    Flag,
    Map,
    Unmap,
    WindowClass,
    WindowFlags,
    WindowName,
)
from insula.protocol.gui.text import fitting_title

_X = xcffib.xproto
_INPUT_HINT, _URGENCY_HINT = 1, 256
_NORMAL_STATE, _ICONIC_STATE = 1, 3
_MAX_STATES = 10
_MAX_TITLE = 4_096  # bytes that are looked at
_ICON = 32  # pixels of a new tray icon's side
_EMBEDDED_NOTIFY = 0  # a message of XEMBED
_XEMBED_MAPPED = 1
STATES = {
    "_NET_WM_STATE_FULLSCREEN": Flag.FULLSCREEN,
    "_NET_WM_STATE_DEMANDS_ATTENTION": Flag.DEMANDS_ATTENTION,
    "_NET_WM_STATE_HIDDEN": Flag.MINIMIZE,
}


class Windows:
    """All top-level windows, kept in step with the X server."""

    def __init__(
        self,
        display: Display,
        send: Callable[[AgentMessage], None],
        gone: Callable[[Window], None],
    ) -> None:
        self._display = display
        self._send = send
        self._gone = gone
        self._known: dict[int, Window] = {}
        self._embedders: dict[int, Window] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            _X.CreateNotifyEvent: self._created,
            _X.DestroyNotifyEvent: lambda event: self._forget(event.window),
            _X.ReparentNotifyEvent: self._reparented,
            _X.MapNotifyEvent: self._mapped,
            _X.UnmapNotifyEvent: self._unmapped,
            _X.ConfigureNotifyEvent: self._configured,
            _X.PropertyNotifyEvent: self._property_changed,
            _X.ClientMessageEvent: self._client_message,
            xcffib.damage.NotifyEvent: self._damaged,
        }
        for window in display.core.QueryTree(display.root).reply().children:
            self._adopt(window)

    def __iter__(self) -> Iterator[Window]:
        return iter(list(self._known.values()))

    def get(self, window: int) -> Window | None:
        """The window of that id, if it is known."""
        return self._known.get(window)

    def handle(self, event: Any) -> None:
        """Take one X event."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def replay(self) -> None:
        """Tell a new viewer of every window (section 8.9)."""
        for window in self:
            window.reported.clear()
            self._announce(window)
            x, y, width, height = window.geometry
            self._send(Configure(window.id, x, y, width, height, window.override_redirect))
            if window.embedder:
                self._send(Dock(window.id))
                window.invalidate()
            elif window.mapped:
                self._announce_map(window)
                window.invalidate()

    def _adopt(self, window: int) -> None:
        """Take on a window that exists already."""
        if window == self._display.stub or window in self._known or window in self._embedders:
            return
        core = self._display.core
        asked = core.GetWindowAttributes(window), core.GetGeometry(window)
        attributes, place = (self._display.reply(cookie) for cookie in asked)
        if attributes is None or place is None:
            return
        geometry = Rect(place.x, place.y, place.width, place.height)
        known = Window(window, geometry, bool(attributes.override_redirect))
        self._known[window] = known
        core.ChangeWindowAttributes(window, _X.CW.EventMask, [_X.EventMask.PropertyChange])
        if attributes._class != _X.WindowClass.InputOnly:
            if place.border_width:
                core.ConfigureWindow(window, _X.ConfigWindow.BorderWidth, [0])
            known.damage = self._display.connection.generate_id()
            level = xcffib.damage.ReportLevel.BoundingBox
            self._display.damage.Create(known.damage, window, level)
        self._read_protocols(known)
        self._read_wm_hints(known)
        self._announce(known)
        if attributes.map_state != _X.MapState.Unmapped:
            self._show(known)

    def _announce(self, window: Window) -> None:
        x, y, width, height = window.geometry
        self._send(Create(window.id, x, y, width, height, 0, window.override_redirect))
        self._report_hints(window)
        self._report_title(window)
        self._report_class(window)

    def _announce_map(self, window: Window) -> None:
        flags = self._states(window)
        self._send(WindowFlags(window.id, int(flags), 0))
        transient = self._display.words(window.id, "WM_TRANSIENT_FOR")
        parent = transient[0] if transient else 0
        self._send(Map(window.id, parent, window.override_redirect))
        self._report_title(window)

    def _show(self, window: Window) -> None:
        window.mapped = True
        self._announce_map(window)
        window.invalidate()
        if not window.override_redirect:
            self._display.set_words(window.id, "WM_STATE", "WM_STATE", (_NORMAL_STATE, 0))

    def _forget(self, window: int) -> None:
        known = self._known.pop(window, None)
        if known is not None:
            self._gone(known)
            self._send(Destroy(window))
            if known.embedder:
                self._display.core.DestroyWindow(known.embedder)
        self._embedders.pop(window, None)

    def _created(self, event: Any) -> None:
        if event.parent == self._display.root:
            self._adopt(event.window)

    def _reparented(self, event: Any) -> None:
        known = self._known.get(event.window)
        if known is not None and event.parent == known.embedder:
            return
        if known is None or known.embedder or event.parent != self._display.root:
            self._forget(event.window)
        if event.parent == self._display.root:
            self._adopt(event.window)

    def dock(self, icon: int) -> None:
        """Put a window into one of ours, which stands for it from here on (section 10.1)."""
        self._adopt(icon)
        window = self._known.get(icon)
        if window is None or window.embedder:
            return
        core, mask = self._display.core, _X.CW
        if window.mapped:
            window.mapped = False
            core.UnmapWindow(icon)
            self._send(Unmap(icon))
        window.embedder = self._display.connection.generate_id()
        self._embedders[window.embedder] = window
        x, y = window.geometry[:2]
        core.CreateWindow(
            0, window.embedder, self._display.root, x, y, _ICON, _ICON, 0,
            _X.WindowClass.InputOutput, 0,
            mask.BackPixel | mask.OverrideRedirect | mask.EventMask,
            [self._display.screen.white_pixel, 1, _X.EventMask.SubstructureNotify],
        )  # fmt: skip
        core.ChangeSaveSet(_X.SetMode.Insert, icon)
        core.ReparentWindow(icon, window.embedder, 0, 0)
        self._fill(window, _ICON, _ICON)
        self._display.send_message(icon, "_XEMBED", (0, _EMBEDDED_NOTIFY, 0, window.embedder, 0))
        self._embedded_info(window)
        core.ConfigureWindow(window.embedder, _X.ConfigWindow.StackMode, [_X.StackMode.Below])
        core.MapWindow(window.embedder)
        self.moved(window, Rect(x, y, _ICON, _ICON), acknowledge=True)
        self._send(Dock(icon))
        window.mapped = True
        window.invalidate()

    def _fill(self, window: Window, width: int, height: int) -> None:
        """Have an icon fill its embedder."""
        mask = _X.ConfigWindow
        self._display.core.ConfigureWindow(
            window.id, mask.X | mask.Y | mask.Width | mask.Height, [0, 0, width, height]
        )

    def _embedded_info(self, window: Window) -> None:
        """Map or unmap an icon as its program wants it."""
        info = self._display.words(window.id, "_XEMBED_INFO")
        if len(info) < 2 or info[1] & _XEMBED_MAPPED:
            self._display.core.MapWindow(window.id)
        else:
            self._display.core.UnmapWindow(window.id)

    def shown_as(self, child: int) -> Window | None:
        """The window that a child of the root stands for."""
        return self._known.get(child) or self._embedders.get(child)

    def _mapped(self, event: Any) -> None:
        window = self._known.get(event.window)
        if window is not None and not window.mapped:
            window.override_redirect = bool(event.override_redirect)
            self._show(window)

    def _unmapped(self, event: Any) -> None:
        window = self._known.get(event.window)
        if window is None or not window.mapped or window.embedder:
            return
        window.mapped = False
        window.damaged = None
        self._send(Unmap(window.id))
        for name in ("WM_STATE", "_NET_WM_STATE"):
            self._display.core.DeleteProperty(window.id, self._display.atom(name))

    def _configured(self, event: Any) -> None:
        place = Rect(event.x, event.y, event.width, event.height)
        docked = self._embedders.get(event.window)
        if docked is not None:
            self._fill(docked, event.width, event.height)
            self.moved(docked, place)
            return
        window = self._known.get(event.window)
        if window is None:
            return
        if window.embedder:
            if place != window.whole:
                self._fill(window, *window.geometry[2:])
            return
        if event.border_width and window.damage:
            self._display.core.ConfigureWindow(window.id, _X.ConfigWindow.BorderWidth, [0])
        window.override_redirect = bool(event.override_redirect)
        self.moved(window, place)

    def moved(self, window: Window, geometry: Rect, *, acknowledge: bool = False) -> None:
        """Note where a window is now and report it if that is news or has to be acknowledged."""
        old, window.geometry = window.geometry, geometry
        if window.mapped and old[2:] != geometry[2:]:
            window.invalidate()
        if acknowledge or old != geometry:
            x, y, width, height = geometry
            self._send(Configure(window.id, x, y, width, height, window.override_redirect))

    def _damaged(self, event: Any) -> None:
        window = self._known.get(event.drawable)
        if window is not None and window.mapped:
            area = event.area
            window.add_damage(Rect(area.x, area.y, area.width, area.height))

    def _property_changed(self, event: Any) -> None:
        window = self._known.get(event.window)
        if window is None:
            return
        atom = self._display.atom
        if event.atom in (atom("WM_NAME"), atom("_NET_WM_NAME")):
            self._report_title(window)
        elif event.atom == atom("WM_NORMAL_HINTS"):
            self._report_hints(window)
        elif event.atom == atom("WM_CLASS"):
            self._report_class(window)
        elif event.atom == atom("_XEMBED_INFO") and window.embedder:
            self._embedded_info(window)
        elif event.atom == atom("WM_PROTOCOLS"):
            self._read_protocols(window)
        elif event.atom == atom("WM_HINTS"):
            self._read_wm_hints(window)

    def _client_message(self, event: Any) -> None:
        """Take an application's wish to be minimised, or to change its _NET_WM_STATE."""
        window = self._known.get(event.window)
        if window is None or event.format != 32:
            return
        if event.type == self._display.atom("WM_CHANGE_STATE"):
            if event.data.data32[0] == _ICONIC_STATE:
                self._send(WindowFlags(window.id, int(Flag.MINIMIZE), 0))
            return
        if event.type != self._display.atom("_NET_WM_STATE"):
            return
        action, *atoms = event.data.data32[:3]
        flags = Flag(0)
        for name, flag in STATES.items():
            if self._display.atom(name) in atoms:
                flags |= flag
        if not flags:
            return
        on = self._states(window)
        wanted = flags if action == 1 else Flag(0) if action == 0 else flags & ~on
        self._send(WindowFlags(window.id, int(wanted), int(flags & ~wanted)))

    def _states(self, window: Window) -> Flag:
        flags = Flag.DEMANDS_ATTENTION if window.urgent else Flag(0)
        atoms = self._display.words(window.id, "_NET_WM_STATE")[:_MAX_STATES]
        for name, flag in STATES.items():
            if self._display.atom(name) in atoms:
                flags |= flag
        return flags

    def _report_title(self, window: Window) -> None:
        title = self._display.property(window.id, "_NET_WM_NAME")
        if title is None:
            found = self._display.long_property(window.id, "WM_NAME", _MAX_TITLE)
            if found is not None:
                is_latin = found[0] == self._display.atom("STRING")
                title = found[1].decode("latin-1").encode() if is_latin else found[1]
        if title is not None:
            fitting = fitting_title(title.split(b"\0", 1)[0]).ljust(TITLE_SIZE, b"\0")
            self._report(window, WindowName(window.id, fitting))

    def _report_hints(self, window: Window) -> None:
        words = self._display.words(window.id, "WM_NORMAL_HINTS")
        if words:
            self._report(window, size_hints(window.id, words))

    def _report_class(self, window: Window) -> None:
        raw = self._display.property(window.id, "WM_CLASS")
        if raw is not None:
            name, _, rest = raw.partition(b"\0")
            kind = rest.partition(b"\0")[0]
            last = CLASS_SIZE - 1
            self._report(window, WindowClass(window.id, kind[:last], name[:last]))

    def _report(self, window: Window, message: AgentMessage) -> None:
        """Send a message unless the viewer knows it already."""
        kind = type(message).__name__
        if window.reported.get(kind) != message:
            window.reported[kind] = message
            self._send(message)

    def _read_protocols(self, window: Window) -> None:
        atoms = self._display.words(window.id, "WM_PROTOCOLS")
        window.deletes = self._display.atom("WM_DELETE_WINDOW") in atoms
        window.takes_focus = self._display.atom("WM_TAKE_FOCUS") in atoms

    def _read_wm_hints(self, window: Window) -> None:
        words = self._display.words(window.id, "WM_HINTS")
        window.input_hint = not (len(words) > 1 and words[0] & _INPUT_HINT and not words[1])
        urgent = bool(words and words[0] & _URGENCY_HINT)
        if urgent != window.urgent:
            window.urgent = urgent
            if window.mapped:
                flags = int(Flag.DEMANDS_ATTENTION)
                self._send(WindowFlags(window.id, flags * urgent, flags * (not urgent)))
