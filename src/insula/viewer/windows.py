"""The qube's messages applied to the desktop, with the checks of gui.md section 6."""

from collections.abc import Callable
from typing import Any, NamedTuple

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.geometry import (
    SIGN,
    Rect,
    clamped,
    confined,
    damage_in_source,
    may_override,
)
from insula.protocol.gui.limits import CURSOR_END, CURSOR_GLYPH
from insula.protocol.gui.messages import (
    AgentMessage,
    Configure,
    Create,
    Cursor,
    Destroy,
    Dock,
    Flag,
    Map,
    ShmImage,
    Unmap,
    ViewerMessage,
    WindowClass,
    WindowDump,
    WindowDumpAck,
    WindowFlags,
    WindowHints,
    WindowName,
)
from insula.protocol.gui.text import shown_class, shown_title
from insula.protocol.viewing import COVER
from insula.viewer.config import Config
from insula.viewer.cursors import Cursors
from insula.viewer.desktop import Desktop
from insula.viewer.lockers import restack
from insula.viewer.region import Image, Region
from insula.viewer.restraint import Log, Suspicions
from insula.viewer.session_link import SessionLink
from insula.viewer.states import States
from insula.viewer.tray import Tray
from insula.viewer.window import Window, bounded_hints

_MOST_ICONS = 32  # of one qube in the tray, which all qubes share
_SCREEN = 0  # the window that shows a whole screen of the qube's, where there is one
_ALL_FLAGS = Flag.FULLSCREEN | Flag.DEMANDS_ATTENTION | Flag.MINIMIZE


class Source(NamedTuple):
    """Where a window's pixels are; bounds: the image's, in the qube's coordinates of the window."""

    image: Image
    bounds: Rect


class Windows:
    """All windows of the qube. A message that gui.md calls fatal raises ProtocolError."""

    def __init__(
        self,
        desktop: Desktop,
        config: Config,
        region: Region,
        log: Log,
        *,
        link: SessionLink,
        send: Callable[[ViewerMessage], None],
    ) -> None:
        self._desktop = desktop
        self._config = config
        self._region = region
        self._log = log
        self._link = link
        self.suspicions = Suspicions(log, link)
        self._send = send
        self._cursors = Cursors(desktop)
        self.tray = Tray(desktop, config)
        self.states = States(desktop, allow_fullscreen=config.allow_fullscreen)
        self._known: dict[int, Window] = {}
        self._local: dict[int, Window] = {}
        self._warned = False
        self._handlers: dict[type, Callable[[Window, Any], None]] = {
            Destroy: self._destroy,
            Map: self._map,
            Unmap: self._unmap,
            Configure: self._configure,
            ShmImage: self._damage,
            WindowName: self._name,
            WindowClass: self._class,
            WindowHints: self._hints,
            WindowFlags: self._flags,
            WindowDump: self._dump,
            Cursor: self._cursor,
            Dock: self._dock,
        }

    def handle(self, message: AgentMessage) -> None:
        """Apply one message about a window.

        Raises:
            ProtocolError: it breaks the protocol, or is one suspicious message too many.
        """
        if isinstance(message, Create):
            self._create(message)
        else:
            window = self._known.get(message.window)
            if window is None:
                raise ProtocolError(f"{type(message).__name__} of unknown window {message.window}")
            self._handlers[type(message)](window, message)

    def keep_behind(self) -> None:
        """Something has to be seen: put frameless windows below it that are above."""
        for window in self.all():
            if window.override and window.mapped:
                restack(self._desktop, window.frame, self._config.screensavers, raises=False)

    def renew(self, window: Window) -> None:
        """Give an icon that went down with its tray new X windows, and dock it again."""
        for gone in (window.frame, window.content):
            self._local.pop(gone, None)
        window.renew()
        self._local[window.frame] = self._local[window.content] = window
        self.tray.dock(window)

    def dock_again(self) -> None:
        """There is a new tray: ask for a place for every icon."""
        for window in self.all():
            if window.docked:
                self.tray.dock(window)

    def local(self, window: int) -> Window | None:
        """The window whose frame or content has this X id."""
        return self._local.get(window)

    def all(self) -> list[Window]:
        """Every window."""
        return list(self._known.values())

    def source(self, window: Window) -> Source | None:
        """A window's own image, or else its place on the qube's screen (section 4.4)."""
        if window.image is not None:
            return Source(window.image, window.image.bounds)
        screen = self._known.get(_SCREEN)
        if screen is None or screen.image is None:
            return None
        _, _, width, height = screen.image.bounds
        return Source(screen.image, Rect(-window.rect.x, -window.rect.y, width, height))

    def _create(self, message: Create) -> None:
        if message.window in self._known:
            raise ProtocolError(f"window {message.window} created twice")
        if len(self._known) >= self._config.windows_count_limit:
            raise ProtocolError(f"more than {self._config.windows_count_limit} windows")
        if message.width >= SIGN or message.height >= SIGN:
            # Later messages would name a window that does not exist, so it gets the least size.
            self.suspicions.note(f"window of {message.width:#x} x {message.height:#x} pixels")
            message = message._replace(width=1, height=1)
        rect = clamped(message.x, message.y, message.width, message.height)
        override = self._granted_override(None, rect, bool(message.override_redirect))
        if override:
            rect = confined(rect, self._desktop.size, self._desktop.work)
        window = Window(self._desktop, self._config, message.window, rect, override=override)
        self._known[message.window] = window
        self._local[window.frame] = self._local[window.content] = window
        self._report_if_moved(window, message.x, message.y, message.width, message.height)

    def _granted_override(self, window: Window | None, rect: Rect, wished: bool) -> bool:
        """Section 6.5, with the area of all such windows together (6.10)."""
        if window is not None and window.docked:
            return False
        if window is not None and window.mapped:
            return window.override
        if not wished or not self._config.override_redirect_allowed:
            return False
        if not self._config.override_redirect_protection:
            return True
        others = sum(
            one.rect.width * one.rect.height
            for one in self._known.values()
            if one.override and one.mapped and one is not window
        )
        if may_override(others + rect.width * rect.height, self._desktop.work):
            return True
        if not self._warned:
            self._warned = True
            self._log.write(
                "a window that wanted to cover the screen without a frame was given one"
            )
            self._link.say("notice", kind=COVER)
        return False

    def _report_if_moved(self, window: Window, x: int, y: int, width: int, height: int) -> None:
        """Tell the qube of a correction that confinement made."""
        if window.override and window.rect != (x, y, width, height):
            self.send_geometry(window)

    def send_geometry(self, window: Window) -> None:
        """Send CONFIGURE, unless one is still to be acknowledged (section 5)."""
        if not window.outstanding:
            self._send(Configure(window.id, *window.rect, 0))
            window.outstanding = window.id != _SCREEN

    def _destroy(self, window: Window, _message: Destroy) -> None:
        for other in self._known.values():
            if other.transient_for == window.id:
                other.transient_for = 0
                other.set_transient_for(None)
        del self._known[window.id]
        del self._local[window.frame], self._local[window.content]
        window.destroy()
        self._send(Destroy(window.id))

    def _map(self, window: Window, message: Map) -> None:
        if window.mapped or window.docked or self._config.invisible:
            return
        parent = self._known.get(message.transient_for)
        if parent is None or self._belongs_to(parent, window):
            window.transient_for = 0
            window.set_transient_for(None)
        else:
            window.transient_for = parent.id
            window.set_transient_for(parent.frame)
        wished = bool(message.override_redirect)
        window.set_override(self._granted_override(window, window.rect, wished))
        if window.override:
            self._confine(window)
        window.write_hints()
        window.show()
        if window.override:
            restack(self._desktop, window.frame, self._config.screensavers)

    def _belongs_to(self, window: Window | None, other: Window) -> bool:
        """Whether a window is other, a dialog of it, a dialog of a dialog, and so on."""
        while window is not None and window is not other:
            window = self._known.get(window.transient_for) if window.transient_for else None
        return window is not None

    def _confine(self, window: Window) -> None:
        rect = confined(window.rect, self._desktop.size, self._desktop.work)
        if rect != window.rect:
            window.place(rect)
            self.send_geometry(window)

    def _unmap(self, window: Window, _message: Unmap) -> None:
        if window.docked:
            return
        if window.id != _SCREEN:
            window.image = None
        window.dirty = None
        if window.mapped:
            window.hide()

    def _configure(self, window: Window, message: Configure) -> None:
        """Section 5, CONFIGURE from the agent."""
        if not 0 < message.width < SIGN or not 0 < message.height < SIGN:
            self.suspicions.note(f"configure to {message.width:#x} x {message.height:#x} pixels")
            return
        rect = clamped(message.x, message.y, message.width, message.height)
        if window.docked:
            if rect != window.rect:
                self._send(Configure(window.id, *window.rect, 0))
            window.outstanding = False
            return
        if window.outstanding:
            if rect == window.rect:
                window.outstanding = False
            else:
                self._send(Configure(window.id, *window.rect, 0))
            return
        if rect == window.rect:
            return
        if window.override:
            allowed = self._granted_override_mapped(window, rect)
            if not allowed:
                self._become_managed(window)
            else:
                rect = confined(rect, self._desktop.size, self._desktop.work)
        window.place(rect)
        self._report_if_moved(window, message.x, message.y, message.width, message.height)

    def _granted_override_mapped(self, window: Window, rect: Rect) -> bool:
        """Whether an override-redirect window may stay one at another size."""
        mapped, window.mapped = window.mapped, False
        try:
            return self._granted_override(window, rect, wished=True)
        finally:
            window.mapped = mapped

    def _become_managed(self, window: Window) -> None:
        """Hand a window over to the window manager: unmapped, changed, mapped (QSB-072)."""
        mapped = window.mapped
        if mapped:
            window.hide()
        window.set_override(False)
        if mapped:
            window.show()

    def _damage(self, window: Window, message: ShmImage) -> None:
        source = self.source(window) if window.mapped or window.docked else None
        if source is not None:
            part = damage_in_source(*message[1:], source.bounds)
            if part is not None:
                window.add_dirty(part)

    def _dump(self, window: Window, message: WindowDump) -> None:
        window.image = None if self._config.no_pixels else self._region.image(message)
        self._send(WindowDumpAck(window.id))

    def _name(self, window: Window, message: WindowName) -> None:
        window.set_title(shown_title(message.title, utf8=self._config.allow_utf8_titles))

    def _class(self, window: Window, message: WindowClass) -> None:
        if window.mapped:
            self._log.write("class of a mapped window not changed")
            return
        name, kind = (
            shown_class(part, self._config.name) for part in (message.res_name, message.res_class)
        )
        window.set_class(name, kind)

    def _hints(self, window: Window, message: WindowHints) -> None:
        window.hints = bounded_hints(message)
        window.write_hints()

    def _flags(self, window: Window, message: WindowFlags) -> None:
        if message.flags_set & message.flags_unset:
            self.suspicions.note(
                f"flags {message.flags_set:#x} set and {message.flags_unset:#x} cleared at once"
            )
            return
        wanted = Flag(message.flags_set & int(_ALL_FLAGS))
        unwanted = Flag(message.flags_unset & int(_ALL_FLAGS & ~Flag.MINIMIZE))
        self.states.wish(window, wanted, unwanted)

    def _cursor(self, window: Window, message: Cursor) -> None:
        glyph = message.cursor - CURSOR_GLYPH
        if message.cursor != 0 and not (
            message.cursor & CURSOR_GLYPH and CURSOR_GLYPH <= message.cursor < CURSOR_END
        ):
            self.suspicions.note(f"cursor {message.cursor:#x}")
            return
        window.set_cursor(self._cursors.get(glyph) if message.cursor else 0)

    def _dock(self, window: Window, _message: Dock) -> None:
        if window.mapped or window.docked:
            self._log.write("window not docked, it is shown already")
            return
        if sum(one.docked for one in self._known.values()) >= _MOST_ICONS:
            self._log.write(f"window not docked, the qube has {_MOST_ICONS} icons already")
            return
        window.dock()
        self.tray.dock(window)
