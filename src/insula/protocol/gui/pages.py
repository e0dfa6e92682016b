"""How many pages an image takes (gui.md section 4.1)."""

from insula.protocol.gui.limits import BYTES_PER_PIXEL, PAGE_SIZE


def pages_needed(width: int, height: int) -> int:
    """Pages that hold width * height pixels, one row right after the other."""
    return -(-(width * height * BYTES_PER_PIXEL) // PAGE_SIZE)
