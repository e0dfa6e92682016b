"""A real PDF to open: one of this machine's own packages, else a page made on the spot."""

import gzip
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SHARE = Path("/usr/share")
_MAGIC = b"%PDF-"
_SMALLEST, _LARGEST = 8_192, 4 * 1024 * 1024  # bytes of a document worth looking at
_LOOK_UP_TIMEOUT = 10.0
_MADE = "a page made here, as no package of this machine has a PDF"
_PAGE = b"""BT /F1 28 Tf 60 700 Td (A risky document) Tj /F1 14 Tf
0 -40 Td (It was opened in a disposable qube: a virtual machine of its own,) Tj
0 -20 Td (which is gone, with all that it held, once this window is closed.) Tj ET"""


class Document(NamedTuple):
    """A PDF, and where it comes from in words for the person."""

    path: Path
    origin: str


def find(scratch: Path) -> Document:
    """A document; one that lies compressed is unpacked into scratch."""
    for path in _candidates("*.pdf"):
        if _begins_right(path.read_bytes()[: len(_MAGIC)], path.stat().st_size):
            return Document(path, _origin(path))
    for path in _candidates("*.pdf.gz"):
        try:
            content = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error):
            continue
        if _begins_right(content, len(content)):
            unpacked = scratch / path.stem
            unpacked.write_bytes(content)
            return Document(unpacked, _origin(path))
    made = scratch / "risky.pdf"
    made.write_bytes(_made())
    return Document(made, _MADE)


def _candidates(pattern: str) -> Iterator[Path]:
    for path in sorted(_SHARE.rglob(pattern)):
        if path.is_file() and path.stat().st_size <= _LARGEST:
            yield path


def _begins_right(beginning: bytes, size: int) -> bool:
    return beginning.startswith(_MAGIC) and _SMALLEST <= size <= _LARGEST


def _origin(path: Path) -> str:
    """Which package a file is of; its path alone where nobody can say."""
    try:
        found = subprocess.run(
            ["dpkg-query", "--search", str(path)],
            capture_output=True,
            text=True,
            timeout=_LOOK_UP_TIMEOUT,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return str(path)
    return f"{path} of the package {found.partition(':')[0]}"


def _made() -> bytes:
    """One page in the simplest form of the format."""
    stream = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(_PAGE), _PAGE)
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        stream,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    out = bytearray(_MAGIC + b"1.4\n")
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        start,
    )
    return bytes(out)
