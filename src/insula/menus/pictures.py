"""Pictures of applications in the colours of labels, and those that we draw ourselves."""

import struct
import zlib
from dataclasses import dataclass

MAX_SIDE = 64  # pixels
_PNG = b"\x89PNG\r\n\x1a\n"
_DEEP, _COLOUR_WITH_ALPHA = 8, 6  # bits of a channel; PNG's colour type


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows of pixels, four bytes each: red, green, blue, alpha."""

    width: int
    height: int
    pixels: bytes


@dataclass(frozen=True, slots=True)
class Colour:
    """Of a label."""

    red: int
    green: int
    blue: int

    @classmethod
    def parse(cls, text: str) -> "Colour":
        """What the Admin API says of a label: 0x and six hexadecimal digits."""
        number = int(text, 16)
        return cls(number >> 16 & 255, number >> 8 & 255, number & 255)

    def __str__(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    def mixed(self, other: "Colour", part: float) -> "Colour":
        """With a part of another colour in it."""
        pairs = ((self.red, other.red), (self.green, other.green), (self.blue, other.blue))
        return Colour(*(round(own + (its - own) * part) for own, its in pairs))


_BLACK, _WHITE = Colour(0, 0, 0), Colour(255, 255, 255)


def shrunk(picture: Picture, side: int = MAX_SIDE) -> Picture:
    """The same picture with no side longer than that: each pixel is the mean of four it covers."""
    longest = max(picture.width, picture.height)
    if longest <= side:
        return picture
    width = max(1, picture.width * side // longest)
    height = max(1, picture.height * side // longest)
    columns = [_two(picture.width, x, width) for x in range(width)]
    made = bytearray()
    for y in range(height):
        rows = [row * picture.width for row in _two(picture.height, y, height)]
        for left, right in columns:
            places = [(row + column) * 4 for row in rows for column in (left, right)]
            made += _mean([picture.pixels[at : at + 4] for at in places])
    return Picture(width, height, bytes(made))


def _two(length: int, at: int, of: int) -> tuple[int, int]:
    """Two places within the at-th of so many parts of a length."""
    quarter = length * (4 * at + 1) // (4 * of)
    return quarter, min(length - 1, length * (4 * at + 3) // (4 * of))


def _mean(pixels: list[bytes]) -> bytes:
    alpha = sum(pixel[3] for pixel in pixels)
    if not alpha:
        return bytes(4)
    channels = (sum(pixel[k] * pixel[3] for pixel in pixels) // alpha for k in range(3))
    return bytes((*channels, alpha // len(pixels)))


def tinted(picture: Picture, label: Colour) -> Picture:
    """The picture in shades of a colour (gui.md section 11)."""
    channels = (label.red, label.green, label.blue)
    most, least = max(channels), min(channels)
    part = tuple(one - least for one in channels) if most > least else (1, 1, 1)
    whole = most - least if most > least else 2
    done: dict[bytes, bytes] = {}
    made = bytearray()
    for at in range(0, len(picture.pixels), 4):
        pixel = picture.pixels[at : at + 4]
        if pixel not in done:
            done[pixel] = _tinted(pixel, part, whole)
        made += done[pixel]
    return Picture(picture.width, picture.height, bytes(made))


def _tinted(pixel: bytes, part: tuple[int, ...], whole: int) -> bytes:
    red, green, blue, alpha = pixel
    most, least = max(red, green, blue), min(red, green, blue)
    chroma = most - least
    weight = 255 + 3 * chroma
    quiet = (1020 - weight) * least
    scale = max(4 * (255 - chroma), 1)
    colour = ((4 * whole * quiet + n * weight * scale) // (4 * whole * scale) for n in part)
    return bytes((*(min(255, one) for one in colour), alpha))


def png(picture: Picture) -> bytes:
    """The picture as a file."""
    row = picture.width * 4
    rows = range(0, len(picture.pixels), row)
    raw = b"".join(b"\0" + picture.pixels[at : at + row] for at in rows)
    head = struct.pack(
        ">IIBBBBB", picture.width, picture.height, _DEEP, _COLOUR_WITH_ALPHA, 0, 0, 0
    )
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def qube_svg(label: Colour, kind: str) -> bytes:
    """A cube in a label's colour. kind: qube, template, network or disposable."""
    light, dark = label.mixed(_WHITE, 0.35), label.mixed(_BLACK, 0.35)
    line = label.mixed(_BLACK, 0.55)
    dashes = ' stroke-dasharray="5 3"' if kind == "disposable" else ""
    return _svg(
        f'<g stroke="{line}" stroke-width="2" stroke-linejoin="round"{dashes}>'
        f'<path fill="{light}" d="M32 4 58 18 32 32 6 18Z"/>'
        f'<path fill="{label}" d="M6 18 32 32V60L6 46Z"/>'
        f'<path fill="{dark}" d="M58 18 32 32V60L58 46Z"/></g>' + _MARKS.get(kind, "")
    )


_MARKS = {
    "template": (
        '<path fill="none" stroke="#ffffff" stroke-width="3" stroke-linecap="round"'
        ' d="M12 29 26 37M12 37 26 45M12 45 22 51"/>'
    ),
    "network": (
        '<g fill="none" stroke="#ffffff" stroke-width="2.5" stroke-linecap="round">'
        '<path d="M38 50c3-7 9-13 15-16M42 51c2-4 6-8 10-10"/></g>'
        '<circle cx="47" cy="50" r="2.5" fill="#ffffff"/>'
    ),
}


def application_svg(label: Colour, letter: str) -> bytes:
    """A window in a label's colour, with a letter: for what has no picture. letter: A-Z, 0-9."""
    dark = label.mixed(_BLACK, 0.45)
    return _svg(
        f'<rect x="5" y="9" width="54" height="46" rx="5" fill="#ffffff" stroke="{dark}"'
        f' stroke-width="2"/><path fill="{label}" d="M5 21V14a5 5 0 0 1 5-5h44a5 5 0 0 1 5 5v7Z"/>'
        f'<text x="32" y="49" font-family="sans-serif" font-size="27" font-weight="bold"'
        f' text-anchor="middle" fill="{dark}">{letter}</text>'
    )


def _svg(content: str) -> bytes:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" viewBox="0 0 64 64">'
        f"{content}</svg>\n"
    ).encode()
