"""Tables and sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.tools.sizes import human_size, parse_size
from insula.tools.table import table


def test_columns_are_padded_but_not_the_last() -> None:
    assert table([("NAME", "STATE"), ("orchid", "Halted")]) == "NAME    STATE\norchid  Halted\n"
    assert table([("a", "", "c"), ("bb", "x", "")]) == "a      c\nbb  x  \n"
    assert table([]) == ""


CELLS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=9)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS)))
def test_cells_can_be_read_back(rows: list[tuple[str, str, str]]) -> None:
    assert [tuple(line.split()) for line in table(rows).splitlines()] == rows


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("12", 12), ("1K", 1000), ("1kb", 1000), ("2M", 2_000_000), ("3GB", 3 * 10**9),
        ("1Ki", 1024), ("1KiB", 1024), ("2mib", 2 << 20), ("3Gi", 3 << 30),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "1T", "1.5G", "-1", "1 K", "5b", "5i", "1KK", "٣", "0x10", "1bk"]
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0 KiB"), (1536 << 10, "1.5 MiB"), (5 << 40, "5120.0 GiB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human_size(size) == text
