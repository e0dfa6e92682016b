"""Windows that the qube docks, as icons in the person's tray (gui.md section 10.2).

The tray's program decides where an icon is and whether it is seen; the qube does not.
"""

import struct

from insula.protocol.gui.geometry import Rect, clip_to_interior
from insula.protocol.gui.tray import Mode, Tint
from insula.viewer.config import Config
from insula.viewer.desktop import Desktop
from insula.viewer.window import Window
from insula.viewer.xlib import xcffib

_X = xcffib.xproto
_REQUEST_DOCK = 0
_MAPPED = 1  # flag of _XEMBED_INFO
_LARGEST = 256  # pixels of an icon's side; larger ones are but a colour


class Tray:
    """The tray of the screen, as one qube's icons see it."""

    def __init__(self, desktop: Desktop, config: Config) -> None:
        self._desktop = desktop
        self._label = config.colour
        self._mode: Mode = config.tray_mode
        self._tint = Tint(
            config.colour,
            half_saturation=self._mode.half_saturation,
            keeps_white=self._mode.keeps_white,
        )
        self._context = 0

    def dock(self, window: Window) -> None:
        """Ask for a place in the tray, if there is one; else it is asked for once there is."""
        desktop = self._desktop
        selection = desktop.atom("_NET_SYSTEM_TRAY_S0")
        owner = desktop.core.GetSelectionOwner(selection).reply().owner
        desktop.set_words(window.frame, "_XEMBED_INFO", "_XEMBED_INFO", (0, _MAPPED))
        if owner:
            words = (0, _REQUEST_DOCK, window.frame, 0, 0)
            desktop.send_message(owner, owner, "_NET_SYSTEM_TRAY_OPCODE", words)

    def is_manager(self, event: object) -> bool:
        """Whether an event tells of a tray that is new."""
        kind, data = event.type, event.data.data32  # type: ignore[attr-defined]
        atom = self._desktop.atom
        return bool(kind == atom("MANAGER") and data[1] == atom("_NET_SYSTEM_TRAY_S0"))

    def part(self, window: Window, damage: Rect | None) -> Rect | None:
        """What of an icon may be drawn."""
        _, _, width, height = window.rect
        if damage is None or max(width, height) > _LARGEST:
            return None
        inside = damage.intersect(Rect(0, 0, width, height))
        if inside is None:
            return None
        return clip_to_interior(inside, width, height, self._mode.border)[0]

    def colour(self, pixels: memoryview, first: int) -> None:
        """Colour pixels of an icon whose top left one is first."""
        words = pixels.cast("I")
        if self._mode.tint:
            tint = self._tint
            words[:] = memoryview(struct.pack(f"={len(words)}I", *map(tint, words))).cast("I")
        elif self._mode.background:
            label, background = self._label, first & 0xFFFFFF
            changed = (label if word & 0xFFFFFF == background else word for word in words)
            words[:] = memoryview(struct.pack(f"={len(words)}I", *changed)).cast("I")

    def draw_border(self, window: Window) -> None:
        """Draw an icon's border, or all of an icon that has no room for pixels."""
        _, _, width, height = window.rect
        core, context = self._desktop.core, self._border_context()
        border = self._mode.border
        if max(width, height) > _LARGEST or min(width, height) <= 2 * border:
            core.PolyFillRectangle(
                window.content, context, 1, [_X.RECTANGLE.synthetic(0, 0, width, height)]
            )
            return
        for at in range(self._mode.inset, self._mode.inset + border):
            outline = _X.RECTANGLE.synthetic(at, at, width - 1 - 2 * at, height - 1 - 2 * at)
            core.PolyRectangle(window.content, context, 1, [outline])

    def _border_context(self) -> int:
        if not self._context:
            self._context = self._desktop.connection.generate_id()
            self._desktop.core.CreateGC(
                self._context, self._desktop.root, _X.GC.Foreground, [self._label]
            )
        return self._context
