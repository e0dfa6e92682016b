"""What a disposable sends of a converted document: pictures of the size they name, or a mistake."""

import io
from contextlib import suppress

from insula.protocol.errors import ProtocolError
from insula.protocol.pixels import (
    MAX_PAGES,
    MAX_PIXELS,
    MAX_SIDE,
    read_count,
    read_line,
    read_picture,
)


def fuzz(data: bytes) -> None:
    """One input: how many bytes a pixel has, then a document, a picture, a line."""
    channels, stream = data[0] % 4 + 1 if data else 1, data[1:]
    with suppress(ProtocolError):
        read = io.BytesIO(stream).read
        count = read_count(read)
        assert 1 <= count <= MAX_PAGES
        for _ in range(count):
            width, height, pixels = read_picture(read, channels)
            assert 1 <= width <= MAX_SIDE
            assert 1 <= height <= MAX_SIDE
            assert len(pixels) == width * height * channels <= MAX_PIXELS * channels
    with suppress(ProtocolError):
        read_picture(io.BytesIO(stream).read, channels)
    with suppress(ProtocolError):
        line = read_line(io.BytesIO(stream).read)
        assert b"\n" not in line
        assert stream.startswith(line + b"\n")
