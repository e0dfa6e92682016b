"""Processors that come later are used, whenever the kernel comes to see them."""

from collections.abc import Callable
from pathlib import Path

from insula.guest.processors import use_all


def _processor(place: Path, number: int, state: str) -> Path:
    directory = place / f"cpu{number}"
    directory.mkdir()
    online = directory / "online"
    online.write_text(f"{state}\n")
    return online


def test_those_that_come_are_used(tmp_path: Path) -> None:
    waiting: list[Callable[[], None]] = []
    (tmp_path / "cpu0").mkdir()  # The first has no such file.
    (tmp_path / "cpufreq").mkdir()
    first = _processor(tmp_path, 1, "0")
    use_all(lambda _seconds, look: waiting.append(look), tmp_path)
    assert first.read_text() == "1"
    second = _processor(tmp_path, 2, "0")
    looks = 0
    while waiting:
        waiting.pop()()
        looks += 1
    assert second.read_text() == "1"
    assert 1 < looks < 20
