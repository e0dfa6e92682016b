"""Colours of tray icons: the vectors of gui.md section 19, and modes by their names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.gui.tray import Mode, Tint, parse

BLUE = 0x3465A4
pixels = st.integers(0, 0xFFFFFF)


@pytest.mark.parametrize(
    ("pixel", "plain", "half"),
    [
        (0x808080, 0x3E77C1, 0x5F7BA0),
        (0x2A6FD0, 0x3C74BD, 0x5C789D),
        (0xFFFFFF, 0xFFFFFF, 0xFFFFFF),
        (0x000000, 0x000000, 0x000000),
    ],
)
def test_vector_42(pixel: int, plain: int, half: int) -> None:
    assert Tint(BLUE, half_saturation=False, keeps_white=False)(pixel) == plain
    assert Tint(BLUE, half_saturation=True, keeps_white=False)(pixel) == half


@given(label=pixels, pixel=pixels, half=st.booleans())
def test_lightness_stays_and_white_may(label: int, pixel: int, half: bool) -> None:
    tint = Tint(label, half_saturation=half, keeps_white=True)
    assert tint(0xFFFFFF) == 0xFEFEFE
    made = tint(pixel)
    if pixel != 0xFFFFFF:
        assert abs(_lightness(made) - _lightness(pixel)) <= 2
        assert tint(pixel | 0x7F000000) == made


def _lightness(pixel: int) -> int:
    parts = pixel.to_bytes(3, "big")
    return max(parts) + min(parts)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("bg", Mode(background=True)),
        ("border1", Mode(border=1)),
        ("border2", Mode(border=1, inset=1)),
        ("tint", Mode(tint=True)),
        ("tint+border1", Mode(tint=True, border=1)),
        ("tint+border2", Mode(tint=True, border=1, inset=1)),
        ("tint+saturation50", Mode(tint=True, half_saturation=True)),
        ("tint+whitehack+border1", Mode(tint=True, keeps_white=True, border=1)),
    ],
)
def test_modes(text: str, mode: Mode) -> None:
    assert parse(text) == mode


@pytest.mark.parametrize("text", ["", "+", "none", "border3", "bg+tint", "saturation50", "tint+bg",
                                  "tint+", "border1+border2"])  # fmt: skip
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        parse(text)
