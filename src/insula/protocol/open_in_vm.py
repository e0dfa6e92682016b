"""The service qubes.OpenInVM: a name of 256 bytes, then a file.

Source of the format: in-qube.md section 4.2.
"""

import re
from typing import NamedTuple

from insula.protocol.errors import ProtocolError

SERVICE = "qubes.OpenInVM"
NAME_SIZE = 256
_VIEW_ONLY = b"view-only-"
_UNSAFE = re.compile(rb"[^0-9A-Za-z._+@-]")


class OpenRequest(NamedTuple):
    """The file's base name as it may be used, and whether it is only to be looked at."""

    name: str
    view_only: bool


def encode_name(name: bytes, *, view_only: bool = False) -> bytes:
    """The first 256 bytes for a file's base name. One too long loses its beginning."""
    prefix = _VIEW_ONLY if view_only else b""
    kept = name[-(NAME_SIZE - 1 - len(prefix)) :]
    return (prefix + kept).ljust(NAME_SIZE, b"\0")


def decode_name(untrusted: bytes) -> OpenRequest:
    """Read the first 256 bytes; bytes that a name should not have become underscores.

    Raises:
        ProtocolError: they are no name of a file.
    """
    if len(untrusted) != NAME_SIZE:
        raise ProtocolError(f"a name of {len(untrusted)} bytes, not {NAME_SIZE}")
    name = untrusted.partition(b"\0")[0]
    view_only = name.startswith(_VIEW_ONLY)
    if view_only:
        name = name[len(_VIEW_ONLY) :]
    if b"/" in name or name in (b"", b".", b".."):
        raise ProtocolError(f"not a file's name: {name!r}")
    return OpenRequest(_UNSAFE.sub(b"_", name).decode("ascii"), view_only)
