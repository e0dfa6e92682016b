"""Cursors of the X cursor font, made when first asked for."""

from insula.protocol.gui.limits import CURSOR_END, CURSOR_GLYPH
from insula.viewer.desktop import Desktop

_WHITE = 0xFFFF


class Cursors:
    """At most one cursor for each glyph."""

    def __init__(self, desktop: Desktop) -> None:
        self._desktop = desktop
        self._font = 0
        self._made: dict[int, int] = {}

    def get(self, glyph: int) -> int:
        """The cursor with a glyph; an odd one is a mask, and means the glyph before it."""
        glyph &= ~1
        assert 0 <= glyph < CURSOR_END - CURSOR_GLYPH
        if glyph not in self._made:
            core = self._desktop.core
            if not self._font:
                self._font = self._desktop.connection.generate_id()
                name = "cursor"
                core.OpenFont(self._font, len(name), name)
            cursor = self._desktop.connection.generate_id()
            core.CreateGlyphCursor(
                cursor, self._font, self._font, glyph, glyph + 1, 0, 0, 0, _WHITE, _WHITE, _WHITE
            )
            self._made[glyph] = cursor
        return self._made[glyph]
