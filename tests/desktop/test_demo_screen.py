"""What the demonstration does with windows: finds, arranges, waits for, closes, pictures them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.protocol.errors import ReportableError
from insula.protocol.gui.geometry import Rect
from insula.tools.demo.screen import Screen, Shown
from tests.desktop.joined import Joined, wait_for


@pytest.fixture
def shown(joined: Joined) -> Iterator[tuple[Screen, Shown, Shown]]:
    with (
        joined.qube.program("xterm", "-title", "one", "-e", "echo hello; sleep 100"),
        joined.qube.program("xterm", "-title", "two", "-e", "echo hello; sleep 100"),
    ):
        screen = Screen(joined.desktop.display)
        wait_for(lambda: len(screen.windows()) == 2, "two windows")
        one, two = sorted(screen.windows(), key=lambda shown: shown.title)
        yield screen, one, two


def test_windows_are_told_by_qube_and_title(shown: tuple[Screen, Shown, Shown]) -> None:
    screen, one, two = shown
    assert (one.qube, one.title) == ("work", "[work] one")
    assert two.title == "[work] two"
    assert screen.first_of("work", 5).window in (one.window, two.window)
    with pytest.raises(ReportableError, match="vault"):
        screen.first_of("vault", 0.1)


def test_arranged_windows_are_all_in_sight_and_do_not_overlap(
    shown: tuple[Screen, Shown, Shown],
) -> None:
    screen, one, two = shown

    def places() -> list[Rect]:
        return [Rect(now.x, now.y, now.width, now.height) for now in screen.windows()]

    for columns in ([[one], [two]], [[one, two]]):
        screen.arrange(columns)
        wait_for(
            lambda: len(places()) == 2 and places()[0].intersect(places()[1]) is None,
            "windows apart",
        )
        whole = Rect(0, 0, 1280, 1024)
        assert all(place.intersect(whole) == place for place in places())


def test_contents_are_waited_for_and_pictured(
    shown: tuple[Screen, Shown, Shown], tmp_path: Path
) -> None:
    screen, one, two = shown
    screen.arrange([[one], [two]])
    assert screen.drawn(one, 20)
    assert screen.drawn(two, 20)
    screen.save(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_window_is_closed(shown: tuple[Screen, Shown, Shown]) -> None:
    screen, one, two = shown
    screen.close(one)
    wait_for(lambda: [now.title for now in screen.windows()] == [two.title], "one window less")
