"""Parts of the demonstration: the document it opens, and the picture it takes."""

import gzip
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from insula.tools.demo import document
from insula.tools.demo.screen import _rgb, png

PDF = b"%PDF-1.4\n" + b"x" * 10_000


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    monkeypatch.setattr(document, "_SHARE", folder)
    return folder


def test_a_plain_document_is_taken_where_it_lies(share: Path, tmp_path: Path) -> None:
    (share / "a.pdf").write_bytes(b"no such thing" * 1000)
    (share / "b.pdf").write_bytes(PDF)
    (share / "c.pdf.gz").write_bytes(gzip.compress(PDF))
    assert document.find(tmp_path).path == share / "b.pdf"


def test_a_compressed_document_is_unpacked(share: Path, tmp_path: Path) -> None:
    (share / "broken.pdf.gz").write_bytes(b"\x1f\x8bnothing")
    (share / "good.pdf.gz").write_bytes(gzip.compress(PDF))
    found = document.find(tmp_path)
    assert found.path == tmp_path / "good.pdf"
    assert found.path.read_bytes() == PDF


def test_without_any_a_page_is_made_that_is_a_pdf(share: Path, tmp_path: Path) -> None:
    made = document.find(tmp_path).path.read_bytes()
    assert not list(share.iterdir())
    match = re.search(rb"startxref\n(\d+)\n%%EOF\n\Z", made)
    assert match is not None
    table = made[int(match[1]) :]
    assert table.startswith(b"xref\n0 6\n")
    for number, line in enumerate(table.splitlines()[3:8], 1):
        assert made[int(line[:10]) :].startswith(b"%d 0 obj" % number)


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    pixels = struct.pack("<2I", 0x0012_3456, 0x00FF_0080)
    picture = png(2, 1, b"\0" + _rgb(pixels))
    assert zlib.decompress(picture[41:-16]) == b"\0\x12\x34\x56\xff\x00\x80"
    path = tmp_path / "picture.png"
    path.write_bytes(picture)
    convert = shutil.which("identify")
    assert convert is not None
    said = subprocess.run([convert, path], capture_output=True, text=True, check=True).stdout
    assert "PNG 2x1" in said
