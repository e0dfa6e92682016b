"""Cursors of the qube's programs as glyphs of the X cursor font, by their names (gui.md 8.6)."""

from collections.abc import Callable

from insula.guest.gui.display import Display
from insula.guest.gui.window import Window
from insula.guest.gui.windows import Windows
from insula.guest.gui.xlib import xcffib
from insula.protocol.gui.limits import CURSOR_GLYPH
from insula.protocol.gui.messages import AgentMessage, Cursor

# In the order of the font, where every second glyph is a mask.
_FONT = """
X_cursor arrow based_arrow_down based_arrow_up boat bogosity bottom_left_corner
bottom_right_corner bottom_side bottom_tee box_spiral center_ptr circle clock coffee_mug cross
cross_reverse crosshair diamond_cross dot dotbox double_arrow draft_large draft_small draped_box
exchange fleur gobbler gumby hand1 hand2 heart icon iron_cross left_ptr left_side left_tee
leftbutton ll_angle lr_angle man middlebutton mouse pencil pirate plus question_arrow right_ptr
right_side right_tee rightbutton rtl_logo sailboat sb_down_arrow sb_h_double_arrow sb_left_arrow
sb_right_arrow sb_up_arrow sb_v_double_arrow shuttle sizing spider spraycan star target tcross
top_left_arrow top_left_corner top_right_corner top_side top_tee trek ul_angle umbrella ur_angle
watch xterm
"""
_GLYPHS = {name: 2 * at for at, name in enumerate(_FONT.split())}
_ALIASES = {
    "pointer": "hand2", "grabbing": "hand2", "progress": "watch", "wait": "watch",
    "text": "xterm", "cell": "plus",
    "all-scroll": "fleur", "v-scroll": "fleur", "h-scroll": "fleur",
    "col-resize": "sb_h_double_arrow", "ew-resize": "sb_h_double_arrow",
    "row-resize": "sb_v_double_arrow", "ns-resize": "sb_v_double_arrow",
    "n-resize": "top_side", "e-resize": "right_side", "s-resize": "bottom_side",
    "w-resize": "left_side", "ne-resize": "top_right_corner", "nw-resize": "top_left_corner",
    "se-resize": "bottom_right_corner", "sw-resize": "bottom_left_corner",
}  # fmt: skip
_DRAGGING = "dnd-"


class Cursors:
    """Tells which cursor the window under the pointer has."""

    def __init__(
        self, display: Display, windows: Windows, send: Callable[[AgentMessage], None]
    ) -> None:
        self._display = display
        self._windows = windows
        self._send = send
        display.xfixes.SelectCursorInput(display.root, xcffib.xfixes.CursorNotifyMask.DisplayCursor)
        now = display.reply(display.xfixes.GetCursorImageAndName())
        self._cursor = 0 if now is None else self._named(now.cursor_atom)

    def changed(self, event: object) -> None:
        """The X server shows another cursor."""
        self._cursor = self._named(event.name)  # type: ignore[attr-defined]
        pointer = self._display.core.QueryPointer(self._display.root).reply()
        window = self._windows.shown_as(pointer.child)
        if window is not None:
            self.report(window)

    def _named(self, atom: int) -> int:
        reply = self._display.reply(self._display.core.GetAtomName(atom)) if atom else None
        return 0 if reply is None else glyph_of(bytes(reply.name.raw).decode("latin-1"))

    def report(self, window: Window) -> None:
        """Say which cursor the pointer has over a window, if that is news."""
        if window.reported.get("Cursor", 0) != self._cursor:
            window.reported["Cursor"] = self._cursor
            self._send(Cursor(window.id, self._cursor))


def glyph_of(name: str) -> int:
    """A cursor as the protocol has it, by its name; 0, the default one, for those unknown."""
    if name.startswith(_DRAGGING):
        name = "hand2"
    glyph = _GLYPHS.get(_ALIASES.get(name, name))
    return 0 if glyph is None else CURSOR_GLYPH + glyph
