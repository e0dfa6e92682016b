"""Processors that a running machine is given: its kernel waits to be told to use them."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PLACE = Path("/sys/devices/system/cpu")
_LOOKS = (0.0, 0.05, 0.2, 0.5, 1.0, 3.0)  # seconds between looks for those that are on their way


def use_all(after: Callable[[float, Callable[[], None]], object], place: Path = _PLACE) -> None:
    """Use every processor that is there or comes soon. after: calls back when seconds passed."""
    left = iter(_LOOKS)

    def look() -> None:
        for state in place.glob("cpu[0-9]*/online"):
            with suppress(OSError):
                if state.read_text().strip() == "0":
                    state.write_text("1")
        if (wait := next(left, None)) is not None:
            after(wait, look)

    look()
