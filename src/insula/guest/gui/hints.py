"""ICCCM size hints as the protocol carries them (gui.md sections 8.3 and 8.5)."""

from insula.protocol.gui.messages import Hint, WindowHints

_FORWARDED = (
    Hint.US_POSITION
    | Hint.P_POSITION
    | Hint.P_MIN_SIZE
    | Hint.P_MAX_SIZE
    | Hint.P_RESIZE_INC
    | Hint.P_BASE_SIZE
)
_WORDS = 18  # of a WM_NORMAL_HINTS property; ancient clients write 15, without a base size


def size_hints(window: int, words: tuple[int, ...]) -> WindowHints:
    """The message for a WM_NORMAL_HINTS property."""
    padded = (*words, *(0,) * _WORDS)[:_WORDS]
    flags = padded[0] & _FORWARDED
    if len(words) < _WORDS:
        flags &= ~Hint.P_BASE_SIZE
    min_width, min_height, max_width, max_height, width_inc, height_inc = padded[5:11]
    base_width, base_height = padded[15:17]
    needed = Hint.P_MIN_SIZE | Hint.P_RESIZE_INC | Hint.P_BASE_SIZE
    if flags & needed == needed:
        min_width = _on_grid(min_width, base_width, width_inc)
        min_height = _on_grid(min_height, base_height, height_inc)
    return WindowHints(
        window, int(flags), min_width, min_height, max_width, max_height,
        width_inc, height_inc, base_width, base_height,
    )  # fmt: skip


def _on_grid(minimum: int, base: int, increment: int) -> int:
    """The minimum moved to a size that increments can reach."""
    if increment <= 1:
        return minimum
    return max(0, (minimum - base + 1) // increment * increment + base)
