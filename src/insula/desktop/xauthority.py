"""Reading an Xauthority file: which cookie opens a display.

Entries: family, then address, display number, authorization name and data, each as a 16-bit
big-endian length and its bytes (Xau(3)).
"""

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_FAMILY_LOCAL = 256
_FAMILY_WILD = 65535
_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Authorization:
    """What an X server wants to see; empty where it asks for nothing."""

    name: bytes = b""
    data: bytes = b""


def find(content: bytes, hostname: bytes, display: bytes) -> Authorization:
    """The first entry of a file's content that fits a local display; a cut file ends early."""
    at = 0

    def take() -> bytes:
        nonlocal at
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        if at + length > len(content):
            raise struct.error("an entry is cut")
        field = content[at : at + length]
        at += length
        return field

    while at + _LENGTH.size <= len(content):
        try:
            (family,) = _LENGTH.unpack_from(content, at)
            at += _LENGTH.size
            address, number, name, data = take(), take(), take(), take()
        except struct.error:
            break
        here = family == _FAMILY_WILD or (family == _FAMILY_LOCAL and address == hostname)
        if here and number in (b"", display):
            return Authorization(name, data)
    return Authorization()


def of_display(display: str) -> Authorization:
    """The cookie of a local display; none where there is no such file."""
    try:
        content = path().read_bytes()
    except OSError:
        return Authorization()
    return find(content, socket.gethostname().encode(), display.encode())


def path() -> Path:
    """The file of cookies: $XAUTHORITY or ~/.Xauthority."""
    return Path(os.environ.get("XAUTHORITY") or Path.home() / ".Xauthority")
