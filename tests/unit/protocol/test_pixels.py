"""Pictures as pixels: numbers are read strictly, sizes are bounded."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.pixels import read_count, read_picture


def test_a_picture_is_its_size_and_its_pixels() -> None:
    read = io.BytesIO(b"2 1\n12345678rest").read
    assert read_picture(read, 4) == (2, 1, b"12345678")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"2\n",
        b"0 1\n",
        b"01 1\nxxx",
        b"2 1\n12",
        b"99999 1\n",
        b" 1 1\nxxx",
        b"1 -1\n",
        b"9" * 99,
    ],
)
def test_anything_else_is_none(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_picture(io.BytesIO(text).read, 3)


@pytest.mark.parametrize("text", [b"0\n", b"10001\n", b"1", b"1 \n", b"x\n"])
def test_a_count_is_a_number_of_pages(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_count(io.BytesIO(text).read)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_picture_or_refused(text: bytes) -> None:
    try:
        width, height, pixels = read_picture(io.BytesIO(text).read, 1)
    except ProtocolError:
        return
    assert len(pixels) == width * height
