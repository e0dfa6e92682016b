"""Labels: how far a qube is trusted, as a colour (admin-api.md section 3.5)."""

import re
from dataclasses import dataclass

HIGHEST_BUILT_IN = 8
_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_COLOR = re.compile(r"0x[0-9A-Fa-f]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Label:
    """color: "0x" and six hexadecimal digits, as it was given."""

    index: int
    name: str
    color: str

    @property
    def rgb(self) -> int:
        """The colour as 0xRRGGBB."""
        return int(self.color, 16)


BUILT_IN = (
    Label(1, "red", "0xcc0000"),
    Label(2, "orange", "0xf57900"),
    Label(3, "yellow", "0xedd400"),
    Label(4, "green", "0x73d216"),
    Label(5, "gray", "0x555555"),
    Label(6, "blue", "0x3465a4"),
    Label(7, "purple", "0x75507b"),
    Label(8, "black", "0x000000"),
)


def is_name(text: str) -> bool:
    """Whether a label may be called so."""
    return _NAME.fullmatch(text) is not None and not text.isdigit()


def is_color(text: str) -> bool:
    """Whether it is written as a colour is."""
    return _COLOR.fullmatch(text) is not None
