"""qvm-convert-pdf and qvm-convert-img: have a disposable look at it, keep the pixels (4.4)."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import Image

from insula.guest.commands.calling import call_words
from insula.protocol.errors import ProtocolError
from insula.protocol.pixels import read_count, read_picture

_BATCH = 50  # pages held at once
_ARCHIVE = "QubesUntrustedPDFs"
_RESOLUTION = 150.0
_CHUNK = 1 << 20


def image(words: Sequence[str] | None = None) -> int:
    """qvm-convert-img IN OUT"""
    parser = argparse.ArgumentParser(
        prog="qvm-convert-img", description="Make a picture anew from its pixels, in a disposable."
    )
    parser.add_argument("source", metavar="IN", type=Path)
    parser.add_argument("target", metavar="OUT", type=Path)
    given = parser.parse_args(words)
    try:
        with given.source.open("rb") as source:
            process = _started("qubes.GetImageRGBA", b"-\n", source)
            assert process.stdout is not None
            width, height, pixels = read_picture(process.stdout.read, 4)
        made = Image.frombytes("RGBA", (width, height), pixels)
        if given.target.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
            made = made.convert("RGB")
        made.save(given.target)
    except (OSError, ProtocolError, ValueError) as error:
        print(f"qvm-convert-img: {given.source}: {error}", file=sys.stderr)
        return 1
    return process.wait()


def pdf(words: Sequence[str] | None = None) -> int:
    """qvm-convert-pdf FILE..."""
    parser = argparse.ArgumentParser(
        prog="qvm-convert-pdf",
        description="Make documents anew from their pages' pixels, in a disposable.",
    )
    parser.add_argument("-b", "--batch", metavar="N", type=int, default=_BATCH)
    parser.add_argument("-a", "--archive", metavar="DIR", type=Path, default=Path.home() / _ARCHIVE)
    parser.add_argument("-i", "--in-place", action="store_true")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    given = parser.parse_args(words)
    code = 0
    for path in given.files:
        try:
            made = _convert(path, max(1, given.batch))
            if given.in_place:
                made.replace(path)
            else:
                given.archive.mkdir(exist_ok=True)
                path.replace(given.archive / path.name)
        except (OSError, ProtocolError, ValueError) as error:
            print(f"qvm-convert-pdf: {path}: {error}", file=sys.stderr)
            code = 1
    return code


def _convert(path: Path, batch: int) -> Path:
    """Make NAME.trusted.pdf, whole or not at all."""
    made = path.with_name(f"{path.stem}.trusted.pdf")
    growing = path.with_name(f".{path.stem}.trusted.pdf")
    try:
        with path.open("rb") as source:
            process = _started("qubes.PdfConvert", b"", source)
        assert process.stdout is not None
        count = read_count(process.stdout.read)
        held: list[Image.Image] = []
        for number in range(1, count + 1):
            width, height, pixels = read_picture(process.stdout.read, 3)
            held.append(Image.frombytes("RGB", (width, height), pixels))
            print(f"{path.name}: page {number} of {count}", end="\r", file=sys.stderr)
            if len(held) == batch or number == count:
                first, *rest = held
                first.save(
                    growing, "PDF", resolution=_RESOLUTION, save_all=True,
                    append_images=rest, append=number > len(held),
                )  # fmt: skip
                held.clear()
        print(file=sys.stderr)
        if process.wait():
            raise ProtocolError(f"the disposable ended with {process.returncode}")
        growing.replace(made)
    finally:
        growing.unlink(missing_ok=True)
    return made


def _started(service: str, first: bytes, source: IO[bytes]) -> "subprocess.Popen[bytes]":
    """A disposable that is given a file."""
    process = subprocess.Popen(
        call_words("@dispvm", service), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        process.stdin.write(first)
        while data := source.read(_CHUNK):
            process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:
        process.kill()
        raise ProtocolError("the disposable does not take it") from None
    return process
