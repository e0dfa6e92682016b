"""How icons of qubes in the tray are coloured (gui.md section 10.3)."""

import colorsys
from typing import NamedTuple

_WHITE, _NEARLY_WHITE, _RGB = 0xFFFFFF, 0xFEFEFE, 0xFFFFFF


class Mode(NamedTuple):
    """background: the first pixel's colour becomes the label's. border, inset: pixels."""

    background: bool = False
    tint: bool = False
    border: int = 0
    inset: int = 0
    half_saturation: bool = False
    keeps_white: bool = False


_PARTS = {
    "bg": Mode(background=True),
    "border1": Mode(border=1),
    "border2": Mode(border=1, inset=1),
    "tint": Mode(tint=True),
    "saturation50": Mode(half_saturation=True),
    "whitehack": Mode(keeps_white=True),
}
_ALONE = ("bg", "border1", "border2", "tint")  # those that others may follow


def parse(text: str) -> Mode:
    """A mode by its name: bg, border1, border2 or tint; tint+border1 and the like.

    Raises:
        ValueError: there is none of that name.
    """
    first, *more = text.split("+")
    if first not in _ALONE or (more and first != "tint"):
        raise ValueError(f"{text!r} is no mode of icons")
    mode = _PARTS[first]
    for name in more:
        if name not in _PARTS or name in ("bg", "tint"):
            raise ValueError(f"{text!r} is no mode of icons")
        part = _PARTS[name]
        mode = Mode(
            tint=True,
            border=max(mode.border, part.border),
            inset=max(mode.inset, part.inset),
            half_saturation=mode.half_saturation or part.half_saturation,
            keeps_white=mode.keeps_white or part.keeps_white,
        )
    return mode


class Tint:
    """Pixels with the hue and saturation of a label, and the lightness that they had."""

    def __init__(self, label: int, *, half_saturation: bool, keeps_white: bool) -> None:
        red, green, blue = (part / 255 for part in _parts(label))
        self._hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
        self._saturation = saturation / 2 if half_saturation else saturation
        self._keeps_white = keeps_white
        self._known: dict[int, int] = {}  # by twice the lightness, of which there are 511

    def __call__(self, pixel: int) -> int:
        """A pixel 0xRRGGBB, tinted."""
        if self._keeps_white and pixel & _RGB == _WHITE:
            return _NEARLY_WHITE
        parts = _parts(pixel)
        lightness = max(parts) + min(parts)
        found = self._known.get(lightness)
        if found is None:
            made = colorsys.hls_to_rgb(self._hue, lightness / 510, self._saturation)
            red, green, blue = (int(part * 255) for part in made)
            found = self._known[lightness] = red << 16 | green << 8 | blue
        return found


def _parts(pixel: int) -> tuple[int, int, int]:
    return pixel >> 16 & 0xFF, pixel >> 8 & 0xFF, pixel & 0xFF
