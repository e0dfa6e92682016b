"""Titles, classes, places and borders: the derived vectors 31 to 38 of gui.md section 19."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.gui.geometry import (
    Rect,
    clamped,
    clip_to_interior,
    confined,
    damage_in_source,
    may_override,
)
from insula.protocol.gui.text import fitting_title, shown_class, shown_title

ROOT = Rect(0, 0, 1920, 1080)
WORK = Rect(0, 27, 1920, 1053)
small = st.integers(-3000, 3000)
sizes = st.integers(1, 3000)
rects = st.builds(Rect, small, small, sizes, sizes)


@pytest.mark.parametrize(
    ("untrusted", "ascii_only", "utf8"),
    [
        ("6f6b201b5b33316d72656407", "ok _[31mred_", "ok _[31mred_"),
        ("c5bcc3b3c58277", "______w", "żółw"),
        ("6c6f6e67e280a6", "long...", "long…"),
        ("e280a6", "___", "…"),
        ("626164c0afeda080", "bad_____", "bad_____"),
        ("f4808080", "____", "____"),
        ("41e280ae42", "A___B", "A___B"),  # a bidirectional override
        ("41c29b42", "A__B", "A__B"),  # a C1 control
        ("41ee808042", "A___B", "A___B"),  # a private-use character
        ("41e2808b42", "A___B", "A___B"),  # a zero-width space
        ("e280", "__", "__"),
    ],
)
def test_titles_show_no_doubtful_byte(untrusted: str, ascii_only: str, utf8: str) -> None:
    title = bytes.fromhex(untrusted)
    assert shown_title(title, utf8=False) == ascii_only
    assert shown_title(title, utf8=True) == utf8


@given(untrusted=st.binary(max_size=200), utf8=st.booleans())
def test_any_title_becomes_short_printable_text(untrusted: bytes, utf8: bool) -> None:
    shown = shown_title(untrusted, utf8=utf8)
    assert len(shown) <= 127
    assert shown.isprintable() or not shown.strip(" ")
    assert utf8 or shown.isascii()


@given(untrusted=st.binary(max_size=80))
def test_any_class_begins_with_the_qubes_name(untrusted: bytes) -> None:
    shown = shown_class(untrusted, "work")
    assert shown.startswith("work:")
    assert shown.isascii()
    assert len(shown) <= len("work:") + 63


@given(title=st.text().map(str.encode))
def test_the_agent_cuts_titles_at_characters(title: bytes) -> None:
    cut = fitting_title(title)
    assert len(cut) <= 127
    cut.decode("utf-8")
    assert cut == title or cut.endswith("…".encode())


def test_ninety_percent_of_the_work_area_is_the_limit() -> None:  # vector 36
    assert may_override(1900 * 957, WORK)
    assert not may_override(1900 * 958, WORK)


@pytest.mark.parametrize(
    ("wished", "granted"),
    [
        (Rect(-20, 10, 200, 100), Rect(0, 27, 200, 100)),
        (Rect(1800, 1000, 300, 200), Rect(1620, 880, 300, 200)),
        (Rect(0, 0, 2500, 500), Rect(0, 27, 1920, 500)),
        (Rect(-300, 5, 200, 100), Rect(-300, 5, 200, 100)),
        (Rect(1920, 5, 200, 100), Rect(1920, 5, 200, 100)),
    ],
)
def test_frameless_windows_stay_in_the_work_area(wished: Rect, granted: Rect) -> None:
    assert confined(wished, ROOT, WORK) == granted


@given(window=rects)
def test_what_can_be_seen_of_a_frameless_window_lies_in_the_work_area(window: Rect) -> None:
    placed = confined(window, ROOT, WORK)
    assert placed.intersect(ROOT) is None or placed.intersect(WORK) == placed


@pytest.mark.parametrize(
    ("damage", "copied"),
    [
        (Rect(0, 0, 200, 100), (Rect(2, 2, 196, 96), True)),
        (Rect(50, 20, 10, 10), (Rect(50, 20, 10, 10), False)),
        (Rect(0, 0, 2, 100), (None, False)),
        (Rect(190, 90, 50, 50), (Rect(190, 90, 8, 8), True)),
    ],
)
def test_damage_never_reaches_the_border(damage: Rect, copied: tuple[Rect | None, bool]) -> None:
    assert clip_to_interior(damage, 200, 100, 2) == copied


def test_a_window_as_thin_as_its_border_is_all_border() -> None:
    assert clip_to_interior(Rect(0, 0, 4, 50), 4, 50, 2) == (None, True)


@given(
    numbers=st.tuples(
        st.integers(-(2**31), 2**31 - 1),
        st.integers(-(2**31), 2**31 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    )
)
def test_any_damage_ends_up_inside_its_source(numbers: tuple[int, int, int, int]) -> None:
    source = Rect(0, 0, 640, 480)
    part = damage_in_source(*numbers, source)
    assert part is None or part.intersect(source) == part
    if numbers[0] < 0 or numbers[1] < 0 or max(numbers[2:]) >= 2**31:
        assert part is None


@given(
    numbers=st.tuples(
        st.integers(-(2**31), 2**31 - 1),
        st.integers(-(2**31), 2**31 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    )
)
def test_any_geometry_is_clamped_to_the_limits(numbers: tuple[int, int, int, int]) -> None:
    placed = clamped(*numbers)
    assert abs(placed.x) <= 16384
    assert abs(placed.y) <= 6144
    assert 1 <= placed.width <= 16384
    assert 1 <= placed.height <= 6144
