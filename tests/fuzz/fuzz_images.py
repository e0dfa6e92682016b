"""Headers of disk images: parsed or refused."""

from contextlib import suppress

from insula.daemon.storage import qcow2
from insula.protocol.errors import ProtocolError


def fuzz(data: bytes) -> None:
    """One input: the first cluster of an image, with and without its magic."""
    for image in (data, b"QFI\xfb" + data):
        with suppress(ProtocolError):
            header = qcow2.parse_header(image)
            assert header.size >= 0
