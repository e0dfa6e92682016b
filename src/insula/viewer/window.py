"""One window of the qube on the desktop: a frame in the label's colour, the content inside.

The frame is the background of the outer X window. For a window that the window manager handles it
lies around the qube's rectangle; for an override-redirect one inside it, over its edge. The qube's
pixels are only ever drawn into the inner X window, which X itself keeps off the frame.
"""

import struct

from insula.protocol.gui.geometry import Rect, clip_to_interior, interior
from insula.protocol.gui.limits import MAX_HEIGHT, MAX_WIDTH
from insula.protocol.gui.messages import Flag, Hint, WindowHints
from insula.viewer.config import Config
from insula.viewer.desktop import Desktop
from insula.viewer.region import Image
from insula.viewer.xlib import xcffib

_X = xcffib.xproto
MANAGED_BORDER = 4  # pixels around the content of a managed window
OVERRIDE_BORDER = 2  # pixels over the edge of an override-redirect one
_STATIC_GRAVITY = 10  # positions asked for are those of the window itself, not of its decoration
_P_WIN_GRAVITY = 0x200
_P_SIZE = 0x8
_ICON = 32  # pixels, square
_INPUT_AND_STATE = 0x3
_NORMAL = 1

_KEYS = _X.EventMask.KeyPress | _X.EventMask.KeyRelease | _X.EventMask.FocusChange
_POINTER = (
    _X.EventMask.ButtonPress
    | _X.EventMask.ButtonRelease
    | _X.EventMask.PointerMotion
    | _X.EventMask.EnterWindow
    | _X.EventMask.LeaveWindow
)
_NOTICES = _X.EventMask.StructureNotify | _X.EventMask.PropertyChange


class Window:
    """The X windows of one of the qube's, and what is known of it.

    rect is the qube's own rectangle in coordinates of the desktop's root; outstanding says that a
    CONFIGURE waits for its acknowledgement; converted that full screen was granted as maximised.
    """

    __slots__ = (
        "_config",
        "_desktop",
        "content",
        "converted",
        "dirty",
        "docked",
        "frame",
        "hints",
        "id",
        "image",
        "local_size",
        "mapped",
        "moved",
        "outstanding",
        "override",
        "rect",
        "states",
        "transient_for",
    )

    def __init__(
        self, desktop: Desktop, config: Config, window: int, rect: Rect, *, override: bool
    ) -> None:
        self.id = window
        self.rect = rect
        self.override = override
        self.mapped = False
        self.docked = False  # in the tray, or on the way there
        self.outstanding = False
        self.converted = False
        self.moved = False  # its ConfigureNotify was not looked at yet
        # Of the frame, as the last ConfigureNotify had it, or as we have asked for it since.
        self.local_size = (0, 0)
        self.states = Flag(0)  # as last reported to the qube
        self.transient_for = 0
        self.hints: WindowHints | None = None
        self.image: Image | None = None
        self.dirty: Rect | None = None
        self._desktop = desktop
        self._config = config
        self.frame: int = desktop.connection.generate_id()
        self.content: int = desktop.connection.generate_id()
        self._create()

    @property
    def border(self) -> int:
        if self.docked:
            return 0
        return OVERRIDE_BORDER if self.override else MANAGED_BORDER

    @property
    def offset(self) -> int:
        """Where the qube's rectangle begins within the frame, on both axes."""
        return 0 if self.override else self.border

    @property
    def outer(self) -> Rect:
        """The frame's rectangle in coordinates of the desktop's root."""
        return self.rect.grown(self.offset)

    def _create(self) -> None:
        core, mask, outer = self._desktop.core, _X.CW, self.outer
        frame_events, content_events = self._events()
        core.CreateWindow(
            0, self.frame, self._desktop.root, *outer, 0, _X.WindowClass.InputOutput, 0,
            mask.BackPixel | mask.OverrideRedirect | mask.EventMask,
            [self._config.colour, int(self.override), frame_events],
        )  # fmt: skip
        core.CreateWindow(
            0, self.content, self.frame, *self._inner(), 0, _X.WindowClass.InputOutput, 0,
            mask.BackPixel | mask.BitGravity | mask.EventMask,
            [self._config.window_background, _X.Gravity.NorthWest, content_events],
        )  # fmt: skip
        self._show_content()
        self._describe()

    def _events(self) -> tuple[int, int]:
        """Event masks of frame and content. Nobody hears of the pointer over a managed frame."""
        expose = _X.EventMask.Exposure
        if self.override:
            return _KEYS | _NOTICES | _POINTER, expose
        return _KEYS | _NOTICES, expose | _POINTER

    def _inner(self) -> Rect:
        """The content's rectangle within the frame; at least a pixel, see _show_content."""
        _, _, width, height = self.rect
        if self.override:
            return interior(width, height, self.border) or Rect(0, 0, 1, 1)
        return Rect(self.border, self.border, width, height)

    def _show_content(self) -> None:
        """Map the content unless the frame needs all of the window."""
        _, _, width, height = self.rect
        if self.override and interior(width, height, self.border) is None:
            self._desktop.core.UnmapWindow(self.content)
        else:
            self._desktop.core.MapWindow(self.content)

    def _describe(self) -> None:
        """Write the properties of section 7.1 that hold for good.

        _NET_WM_PID is left out on purpose: in a jail it is the number of some other process.
        """
        desktop, config, frame = self._desktop, self._config, self.frame
        name = config.name.encode("ascii")
        core = desktop.core
        label = desktop.atom("_QUBES_LABEL")
        cardinal = desktop.atom("CARDINAL")
        core.ChangeProperty(
            _X.PropMode.Replace, frame, label, cardinal, 8, 1, bytes([config.label & 0xFF])
        )
        desktop.set_words(frame, "_QUBES_LABEL_COLOR", "CARDINAL", (config.colour,))
        desktop.set_text(frame, "_QUBES_VMNAME", "STRING", name)
        desktop.set_words(frame, "_QUBES_VMWINDOWID", "WINDOW", (self.id,))
        icon = (_ICON, _ICON, *(0xFF00_0000 | config.colour,) * (_ICON * _ICON))
        desktop.set_words(frame, "_NET_WM_ICON", "CARDINAL", icon)
        protocols = desktop.atom("WM_DELETE_WINDOW"), desktop.atom("_NET_WM_PING")
        desktop.set_words(frame, "WM_PROTOCOLS", "ATOM", protocols)
        wm_hints = (_INPUT_AND_STATE, 1, _NORMAL, 0, 0, 0, 0, 0, 0)
        desktop.set_words(frame, "WM_HINTS", "WM_HINTS", wm_hints)
        desktop.describe_user_time(frame)
        for property_name, kind, value in config.properties:
            self._add(property_name, kind, value)
        self.set_class(config.name, config.name)
        self.set_title("")
        self.write_hints()

    def _add(self, name: str, kind: str, value: str) -> None:
        """Write a property that whoever started us wants: a text, an atom, or numbers."""
        if kind == "s":
            self._desktop.set_text(self.frame, name, "STRING", value.encode())
        elif kind == "a":
            self._desktop.set_words(self.frame, name, "ATOM", (self._desktop.atom(value),))
        else:
            numbers = tuple(int(one) for one in value.split(","))
            self._desktop.set_words(self.frame, name, "CARDINAL", numbers)

    def set_title(self, shown: str) -> None:
        """Write a title that is safe to show, after the qube's name where nobody else shows it."""
        prefix = f"[{self._config.name}] " if self._config.title_prefix else ""
        text = f"{prefix}{shown}".encode()
        for name in ("WM_NAME", "WM_ICON_NAME", "_NET_WM_NAME", "_NET_WM_ICON_NAME"):
            self._desktop.set_text(self.frame, name, "UTF8_STRING", text)

    def set_class(self, res_name: str, res_class: str) -> None:
        """Write instance and class name."""
        text = f"{res_name}\0{res_class}\0".encode("ascii")
        self._desktop.set_text(self.frame, "WM_CLASS", "STRING", text)

    def write_hints(self) -> None:
        """Write WM_NORMAL_HINTS: what the qube wished, with room for the frame (section 6.2)."""
        x, y, width, height = self.outer
        flags = _P_WIN_GRAVITY | _P_SIZE
        minimum = maximum = increment = base = (0, 0)
        extra = 2 * self.offset
        if self.hints is not None:
            wished = self.hints
            flags |= wished.flags & (Hint.US_POSITION | Hint.P_POSITION)
            if wished.flags & Hint.P_MIN_SIZE:
                minimum = wished.min_width + extra, wished.min_height + extra
                flags |= Hint.P_MIN_SIZE
            if wished.flags & Hint.P_MAX_SIZE:
                maximum = wished.max_width + extra, wished.max_height + extra
                flags |= Hint.P_MAX_SIZE
            if wished.flags & Hint.P_BASE_SIZE:
                base = wished.base_width + extra, wished.base_height + extra
                flags |= Hint.P_BASE_SIZE
            if wished.flags & Hint.P_RESIZE_INC:
                increment = wished.width_inc, wished.height_inc
                flags |= Hint.P_RESIZE_INC
                if not flags & Hint.P_BASE_SIZE:  # increments count from the frame, not from 0
                    base = minimum if flags & Hint.P_MIN_SIZE else (extra, extra)
                    flags |= Hint.P_BASE_SIZE
        words = (
            int(flags), x & 0xFFFF_FFFF, y & 0xFFFF_FFFF, width, height, *minimum, *maximum,
            *increment, 0, 0, 0, 0, *base, _STATIC_GRAVITY,
        )  # fmt: skip
        self._desktop.set_words(self.frame, "WM_NORMAL_HINTS", "WM_SIZE_HINTS", words)

    def set_transient_for(self, frame: int | None) -> None:
        """Tell the window manager which frame this is a dialog of."""
        if frame is None:
            atom = self._desktop.atom("WM_TRANSIENT_FOR")
            self._desktop.core.DeleteProperty(self.frame, atom)
        else:
            self._desktop.set_words(self.frame, "WM_TRANSIENT_FOR", "WINDOW", (frame,))

    def set_override(self, override: bool) -> None:
        """Switch the window manager off or on for this window, which must not be mapped."""
        if override == self.override:
            return
        self.override = override
        core, mask = self._desktop.core, _X.CW
        frame_events, content_events = self._events()
        core.ChangeWindowAttributes(
            self.frame, mask.OverrideRedirect | mask.EventMask, [int(override), frame_events]
        )
        core.ChangeWindowAttributes(self.content, mask.EventMask, [content_events])
        self.place(self.rect)

    def place(self, rect: Rect) -> None:
        """Have the qube's rectangle elsewhere; the window manager may object."""
        self.rect = rect
        mask = _X.ConfigWindow
        x, y, width, height = self.outer
        self.local_size = width, height
        self._desktop.core.ConfigureWindow(
            self.frame,
            mask.X | mask.Y | mask.Width | mask.Height,
            [x, y, width, height],
        )
        self.fit_content()

    def fit_content(self) -> None:
        """Give the content the size that the frame leaves it."""
        mask = _X.ConfigWindow
        self._desktop.core.ConfigureWindow(
            self.content, mask.X | mask.Y | mask.Width | mask.Height, list(self._inner())
        )
        self._show_content()

    def local_rect(self) -> Rect | None:
        """Where the qube's rectangle is now on the desktop; None when the window is gone."""
        width, height = (max(1, size - 2 * self.offset) for size in self.local_size)
        cookie = self._desktop.core.TranslateCoordinates(
            self.frame, self._desktop.root, self.offset, self.offset
        )
        found = self._desktop.reply(cookie)
        if found is None:
            return None
        if self.docked:
            return Rect(max(0, found.dst_x), max(0, found.dst_y), width, height)
        return Rect(found.dst_x, found.dst_y, min(width, MAX_WIDTH), min(height, MAX_HEIGHT))

    def dock(self) -> None:
        """Be an icon from here on; the window must not be mapped."""
        self.docked = True
        self.set_override(False)
        self.place(self.rect)

    def renew(self) -> None:
        """Have X windows again after somebody else destroyed them."""
        self.mapped = False
        self.frame = self._desktop.connection.generate_id()
        self.content = self._desktop.connection.generate_id()
        self._create()

    def show(self) -> None:
        """Map the frame."""
        self.mapped = True
        self._desktop.core.MapWindow(self.frame)

    def hide(self) -> None:
        """Unmap the frame, as ICCCM 4.1.4 wants it of a window that is withdrawn."""
        self.mapped = False
        self._desktop.core.UnmapWindow(self.frame)
        if not self.override:
            event = struct.pack("=BxHIIB19x", 18, 0, self._desktop.root, self.frame, 0)
            mask = _X.EventMask.SubstructureRedirect | _X.EventMask.SubstructureNotify
            self._desktop.core.SendEvent(False, self._desktop.root, mask, event)

    def destroy(self) -> None:
        """Remove the X windows."""
        self._desktop.core.DestroyWindow(self.frame)

    def set_cursor(self, cursor: int) -> None:
        """Show a cursor (an X id, or 0 for the default one) over the content."""
        self._desktop.core.ChangeWindowAttributes(self.content, _X.CW.Cursor, [cursor])

    def add_dirty(self, rectangle: Rect) -> None:
        """Note that a rectangle, in the qube's coordinates of the window, has to be drawn."""
        self.dirty = rectangle if self.dirty is None else self.dirty.union(rectangle)

    def drawable_part(self, bounds: Rect | None) -> Rect | None:
        """What of the dirty rectangle can be drawn; it counts as drawn from here on.

        bounds: of the pixels that there are, in the qube's coordinates of the window.
        """
        dirty, self.dirty = self.dirty, None
        if dirty is None or bounds is None or not (self.mapped or self.docked):
            return None
        _, _, width, height = self.rect
        inside = dirty.intersect(bounds)
        if inside is None:
            return None
        if self.override:
            return clip_to_interior(inside, width, height, self.border)[0]
        return inside.intersect(Rect(0, 0, width, height))

    def content_offset(self) -> int:
        """Where the content begins in the qube's coordinates of the window, on both axes."""
        return self.border if self.override else 0


def bounded_hints(hints: WindowHints) -> WindowHints:
    """The hints without the groups whose values are out of bounds (section 6.2)."""
    flags = hints.flags
    if hints.min_width > MAX_WIDTH or hints.min_height > MAX_HEIGHT:
        flags &= ~Hint.P_MIN_SIZE
    if not (0 < hints.max_width <= MAX_WIDTH and 0 < hints.max_height <= MAX_HEIGHT):
        flags &= ~Hint.P_MAX_SIZE
    if hints.width_inc >= MAX_WIDTH or hints.height_inc >= MAX_HEIGHT:
        flags &= ~Hint.P_RESIZE_INC
    if hints.base_width > MAX_WIDTH or hints.base_height > MAX_HEIGHT:
        flags &= ~Hint.P_BASE_SIZE
    return hints._replace(flags=int(flags))
