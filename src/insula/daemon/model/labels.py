"""Labels: how far a qube is trusted, as a colour (admin-api.md section 3.5)."""

from dataclasses import dataclass


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
