"""What converters send: pictures and pages as pixels, nothing of the source's structure.

Source of the format: in-qube.md section 4.4.
"""

import re
from collections.abc import Callable

from insula.protocol.errors import ProtocolError

MAX_SIDE = 10_000  # pixels
MAX_PAGES = 10_000
MAX_PIXELS = 100_000_000
_NUMBER = re.compile(rb"[1-9][0-9]{0,4}", re.ASCII)
_LONGEST_LINE = 16  # bytes

Read = Callable[[int], bytes]


def read_line(read: Read) -> bytes:
    """A short line, without its line feed. read: as of a buffered file.

    Raises:
        ProtocolError: it does not end.
    """
    line = b""
    while len(line) <= _LONGEST_LINE:
        byte = read(1)
        if byte == b"\n":
            return line
        if not byte:
            break
        line += byte
    raise ProtocolError("a line that does not end")


def read_count(read: Read) -> int:
    """How many pages come.

    Raises:
        ProtocolError: that is no acceptable number.
    """
    return _number(read_line(read), MAX_PAGES)


def read_picture(read: Read, channels: int) -> tuple[int, int, bytes]:
    """Width, height, and the pixels of one byte for each channel.

    Raises:
        ProtocolError: they are not as they should be.
    """
    width_text, space, height_text = read_line(read).partition(b" ")
    if not space:
        raise ProtocolError("no width and height")
    width, height = _number(width_text, MAX_SIDE), _number(height_text, MAX_SIDE)
    if width * height > MAX_PIXELS:
        raise ProtocolError(f"{width} x {height} pixels are too many")
    size = width * height * channels
    pixels = read(size)
    if len(pixels) != size:
        raise ProtocolError("a picture that breaks off")
    return width, height, pixels


def _number(text: bytes, most: int) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > most:
        raise ProtocolError(f"not a number up to {most}: {text!r}")
    return int(text)
