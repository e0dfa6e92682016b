"""The window protocol's parsers, fed whatever a qube may send: messages or ProtocolError."""

from contextlib import suppress

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.geometry import Rect, clamped, damage_in_source
from insula.protocol.gui.handshake import effective_minor
from insula.protocol.gui.messages import Create, ShmImage, WindowClass, WindowName
from insula.protocol.gui.stream import take_from_agent
from insula.protocol.gui.text import shown_class, shown_title

_SOURCE = Rect(0, 0, 800, 600)


def fuzz(data: bytes) -> None:
    """One input: the agent's version, then its messages."""
    with suppress(ProtocolError):
        minor = effective_minor(data[:4].ljust(4, b"\0"))
        received = bytearray(data[4:])
        while (message := take_from_agent(received, minor)) is not None:
            match message:
                case WindowName(_, title):
                    assert shown_title(title, utf8=False).isascii()
                    shown_title(title, utf8=True).encode()
                case WindowClass(_, res_class, res_name):
                    assert shown_class(res_class, "q").isascii()
                    assert shown_class(res_name, "q").isascii()
                case ShmImage():
                    part = damage_in_source(*message[1:], _SOURCE)
                    assert part is None or part.intersect(_SOURCE) == part
                case Create(_, x, y, width, height):
                    clamped(x, y, width, height)
                case _:
                    pass
