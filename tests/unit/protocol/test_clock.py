"""Times from other qubes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.clock import parse_time


@pytest.mark.parametrize(
    "text",
    [
        b"2022-07-10T17:08:31+00:00\n",
        b"2026-01-01T00:00:00+01:00\n",
        b"2026-01-01T00:00:00+00:00",
        b"2026-13-01T00:00:00+00:00\n",
        b"2026-01-01T00:00:00,123+00:00\n",
        b"$(reboot)\n",
        b"",
    ],
)
def test_what_is_no_time_is_none(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"time|month|been"):
        parse_time(text)


def test_times_are_read_to_the_nanosecond() -> None:
    assert parse_time(b"2026-01-01T00:00:00+00:00\n") == 1_767_225_600 * 10**9
    assert parse_time(b"2026-01-01T00:00:00,000000007+00:00\n") % 10**9 == 7


@given(st.binary(max_size=40))
def test_any_bytes_are_a_time_or_none(text: bytes) -> None:
    with suppress(ValueError):
        assert parse_time(text) > 0
