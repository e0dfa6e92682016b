"""Where a qube's windows and pixels may lie (gui.md sections 4.4, 5, 6.2, 6.5 and 6.6).

All values are pixels. Rectangles may lie anywhere a signed 32-bit number reaches; Python's integers
do not overflow, so sums need no care.
"""

from typing import NamedTuple

from insula.protocol.gui.limits import MAX_HEIGHT, MAX_WIDTH

SIGN = 0x8000_0000  # u32 values from here on are negative when read as i32
_COVER_PERCENT = 90


class Rect(NamedTuple):
    """A rectangle; right and bottom are one past its last pixel."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    def intersect(self, other: "Rect") -> "Rect | None":
        """What both cover; None when that is nothing."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        if right <= x or bottom <= y:
            return None
        return Rect(x, y, right - x, bottom - y)

    def union(self, other: "Rect") -> "Rect":
        """The smallest rectangle that covers both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        return Rect(x, y, max(self.right, other.right) - x, max(self.bottom, other.bottom) - y)

    def grown(self, margin: int) -> "Rect":
        """With margin more on each side."""
        return Rect(
            self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin
        )


def clamped(x: int, y: int, width: int, height: int) -> Rect:
    """A window's geometry within the protocol's limits and at least one pixel large."""
    return Rect(
        max(-MAX_WIDTH, min(MAX_WIDTH, x)),
        max(-MAX_HEIGHT, min(MAX_HEIGHT, y)),
        max(1, min(MAX_WIDTH, width)),
        max(1, min(MAX_HEIGHT, height)),
    )


def may_override(area: int, work: Rect) -> bool:
    """Whether windows of this area in all may go without a window manager's frame (6.5)."""
    return area <= work.width * work.height * _COVER_PERCENT // 100


def confined(window: Rect, root: Rect, work: Rect) -> Rect:
    """The window moved and shrunk into the work area, unless all of it is off the screen (6.6)."""
    if window.intersect(root) is None:
        return window
    width, height = min(window.width, work.width), min(window.height, work.height)
    x = min(max(window.x, work.x), work.right - width)
    y = min(max(window.y, work.y), work.bottom - height)
    return Rect(x, y, width, height)


def damage_in_source(x: int, y: int, width: int, height: int, source: Rect) -> Rect | None:
    """An untrusted rectangle clamped to the buffer it lies in; None when nothing of it counts."""
    if x < 0 or y < 0 or width >= SIGN or height >= SIGN:
        return None
    return Rect(x, y, width, height).intersect(source)


def interior(width: int, height: int, border: int) -> Rect | None:
    """What a border inside a window leaves for the qube; None: the border fills all of it."""
    if width <= 2 * border or height <= 2 * border:
        return None
    return Rect(border, border, width - 2 * border, height - 2 * border)


def clip_to_interior(
    damage: Rect, width: int, height: int, border: int
) -> tuple[Rect | None, bool]:
    """What of the damage may be copied, and whether the border has to be drawn again."""
    inside = interior(width, height, border)
    if inside is None:
        return None, True
    copied = damage.intersect(inside)
    return copied, copied is not None and copied != damage
