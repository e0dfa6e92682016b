"""Pictures: shades of a label's colour by the vectors of gui.md, sizes, and files."""

import struct
import zlib
from xml.etree import ElementTree

import pytest

from insula.menus.pictures import (
    MAX_SIDE,
    Colour,
    Picture,
    application_svg,
    png,
    qube_svg,
    shrunk,
    tinted,
)


@pytest.mark.parametrize(
    ("label", "before", "after"),
    [
        ("0xcc0000", "ff0000ff", "ff0000ff"),
        ("0xcc0000", "ffffffff", "ffbfbfff"),
        ("0xcc0000", "000000ff", "3f0000ff"),
        ("0xcc0000", "808080ff", "9f6060ff"),
        ("0xcc0000", "0ac81e80", "d5070780"),
        ("0x73d216", "ff0000ff", "7eff00ff"),
        ("0x73d216", "808080ff", "7f9f60ff"),
        ("0x73d216", "0ac81e80", "6dd50780"),
        ("0x000000", "ff0000ff", "7f7f7fff"),
        ("0x000000", "ffffffff", "dfdfdfff"),
        ("0x000000", "000000ff", "1f1f1fff"),
    ],
)
def test_a_pixel_has_the_colour_of_its_label(label: str, before: str, after: str) -> None:
    picture = Picture(1, 2, bytes.fromhex(before) * 2)
    assert tinted(picture, Colour.parse(label)) == Picture(1, 2, bytes.fromhex(after) * 2)


def test_a_large_picture_is_shrunk_and_a_small_one_is_not() -> None:
    half = bytes((255, 0, 0, 255)) * 256 + bytes((0, 0, 255, 255)) * 256
    made = shrunk(Picture(512, 256, half * 256))
    assert (made.width, made.height, len(made.pixels)) == (MAX_SIDE, 32, MAX_SIDE * 32 * 4)
    assert made.pixels[:4] == bytes((255, 0, 0, 255))
    assert made.pixels[-4:] == bytes((0, 0, 255, 255))
    assert shrunk(made) is made
    thin = shrunk(Picture(1, 2048, bytes(4 * 2048)))
    assert (thin.width, thin.height) == (1, MAX_SIDE)


def test_what_is_not_seen_has_no_part_in_the_colour() -> None:
    checks = (bytes((200, 100, 0, 255)) * 2 + bytes((0, 255, 255, 0)) * 2) * 32
    made = shrunk(Picture(128, 128, checks * 128), 32)
    assert {made.pixels[at : at + 3] for at in range(0, len(made.pixels), 4)} == {b"\xc8\x64\0"}


def test_a_picture_is_a_png() -> None:
    written = png(Picture(2, 1, bytes(range(8))))
    assert written.startswith(b"\x89PNG\r\n\x1a\n")
    (size,) = struct.unpack_from(">I", written, 33)
    assert zlib.decompress(written[41 : 41 + size]) == b"\0" + bytes(range(8))


@pytest.mark.parametrize("kind", ["qube", "template", "network", "disposable"])
def test_qubes_are_drawn_in_their_colour(kind: str) -> None:
    drawn = qube_svg(Colour.parse("0x3465a4"), kind)
    ElementTree.fromstring(drawn)
    assert b"#3465a4" in drawn
    assert b"#3465a4" in application_svg(Colour.parse("0x3465a4"), "F")
