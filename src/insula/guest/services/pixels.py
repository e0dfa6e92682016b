"""The services qubes.GetImageRGBA and qubes.PdfConvert: documents become pixels (in-qube.md 4.4).

They run where what they open can do no harm: in a disposable.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from insula.protocol.pixels import MAX_PAGES, MAX_SIDE

_MAX_DOCUMENT = 1 << 30  # bytes
_CHUNK = 1 << 20
_LONGEST_NAME = 4096
_ICON = "xdgicon:"
_ICON_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_ICONS = Path("/usr/share/icons"), Path("/usr/share/pixmaps")
_PAGES = re.compile(r"^Pages:\s+(\d+)$", re.MULTILINE | re.ASCII)
_RESOLUTION = "150"  # dots per inch
_PAGE_TIMEOUT = 120.0  # seconds


def image() -> int:
    """A line that names a picture, then perhaps its data."""
    wanted = sys.stdin.buffer.readline(_LONGEST_NAME).rstrip(b"\n").decode("utf-8", "replace")
    try:
        with Image.open(_source(wanted)) as opened:
            pixels = opened.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        print(f"not a picture that can be read: {error}", file=sys.stderr)
        return 1
    if max(pixels.size) > MAX_SIDE:
        pixels.thumbnail((MAX_SIDE, MAX_SIDE))
    sys.stdout.buffer.write(b"%d %d\n" % pixels.size)
    sys.stdout.buffer.write(pixels.tobytes())
    return 0


def _source(wanted: str) -> "io.BytesIO | Path":
    if wanted == "-" or wanted.endswith(":-"):
        return io.BytesIO(_document())
    if not wanted.startswith(_ICON):
        return Path(wanted)
    name = wanted.removeprefix(_ICON)
    if _ICON_NAME.fullmatch(name) is None:
        raise ValueError(f"not an icon's name: {name!r}")
    found = [path for top in _ICONS for path in top.glob(f"**/{name}.png")]
    if not found:
        raise FileNotFoundError(f"no icon {name}")
    return max(found, key=lambda path: path.stat().st_size)


def document() -> int:
    """A PDF until the end of input; its pages as pictures."""
    with tempfile.TemporaryDirectory(prefix="convert-") as name:
        path = Path(name, "document.pdf")
        path.write_bytes(_document())
        count = _pages(path)
        if not 1 <= count <= MAX_PAGES:
            print("not a document with pages", file=sys.stderr)
            return 1
        output = sys.stdout.buffer
        output.write(b"%d\n" % count)
        output.flush()
        for number in range(1, count + 1):
            with Image.open(io.BytesIO(_page(path, number))) as opened:
                pixels = opened.convert("RGB")
            if max(pixels.size) > MAX_SIDE:
                pixels.thumbnail((MAX_SIDE, MAX_SIDE))
            output.write(b"%d %d\n" % pixels.size)
            output.write(pixels.tobytes())
            output.flush()
    return 0


def _document() -> bytes:
    """All that comes, in pieces: what one call may read is there at once."""
    received = bytearray()
    while len(received) < _MAX_DOCUMENT and (data := sys.stdin.buffer.read(_CHUNK)):
        received += data
    return bytes(received)


def _pages(path: Path) -> int:
    done = subprocess.run(
        ["pdfinfo", str(path)], capture_output=True, timeout=_PAGE_TIMEOUT, check=False
    )
    found = _PAGES.search(done.stdout.decode("utf-8", "replace"))
    return int(found[1]) if found else 0


def _page(path: Path, number: int) -> bytes:
    """One page as a PPM."""
    return subprocess.run(
        ["pdftoppm", "-r", _RESOLUTION, "-f", str(number), "-l", str(number), str(path)],
        capture_output=True, timeout=_PAGE_TIMEOUT, check=True,
    ).stdout  # fmt: skip
