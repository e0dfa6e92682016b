"""What qubes tell of their applications: printable names of a few kinds of letters, or nothing."""

import re

from insula.protocol.errors import ProtocolError
from insula.protocol.menus import take_applications

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def fuzz(data: bytes) -> None:
    """One input: lines."""
    try:
        found = take_applications(data.splitlines(keepends=True))
    except ProtocolError:
        return
    for name, application in found.items():
        assert _ID.fullmatch(name)
        assert application.name.isascii()
        assert application.name.isprintable()
        assert application.name.strip()
        assert set(application.icon) <= set(map(chr, range(0x21, 0x7F))) - set("%$\\\"'`")
