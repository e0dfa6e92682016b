"""The person's X server as a session needs it: connections for viewers, and one of its own.

The one of its own greets the server, so that a refusal shows at once, is read for the keyboard
layout, and then only tells by its end that the display is gone. X11 as in its protocol document,
little endian.
"""

import socket
import struct
from typing import NamedTuple

from insula.desktop import xauthority
from insula.desktop.xauthority import Authorization
from insula.protocol.errors import ReportableError

TIMEOUT = 10.0  # seconds for the X server's answers
_TCP_BASE = 6000
_MAX_SETUP = 1 << 20  # bytes of its greeting
_MAX_PROPERTY = 4096  # 32-bit units
_GREETING = struct.Struct("<BBHHH")  # success, length of the reason, version, 32-bit units
_ROOTS_AT = 40  # offset of the vendor's name in the greeting
_INTERN_ATOM, _GET_PROPERTY = 16, 20
_REPLY = 32  # bytes of a reply without its tail, of an event and of an error


class DisplayError(ReportableError):
    """The X server cannot be used."""


class Display(NamedTuple):
    """Where an X server is; host is empty for a local one."""

    text: str
    host: str
    number: int

    def connect(self) -> socket.socket:
        """A fresh connection, not greeted.

        Raises:
            DisplayError: it does not answer.
        """
        try:
            if self.host:
                return socket.create_connection((self.host, _TCP_BASE + self.number), TIMEOUT)
            return self._connect_locally()
        except OSError as error:
            raise DisplayError(f"the X server {self.text} does not answer: {error}") from error

    def _connect_locally(self) -> socket.socket:
        path = f"/tmp/.X11-unix/X{self.number}"
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        try:
            try:
                connection.connect(path)
            except FileNotFoundError:
                connection.connect(f"\0{path}")  # some listen only there
        except OSError:
            connection.close()
            raise
        return connection

    def authorization(self) -> Authorization:
        """What the X server wants to see."""
        return xauthority.of_display(str(self.number))


class Greeted:
    """A connection of our own; it does nothing more once the layout is read."""

    def __init__(self, display: Display) -> None:
        """Raises: DisplayError: the X server does not answer, or does not want us."""
        self.connection = display.connect()
        try:
            self._root = _greet(self.connection, display)
        except OSError as error:
            self.connection.close()
            raise DisplayError(f"the X server {display.text} does not answer: {error}") from error
        except DisplayError:
            self.connection.close()
            raise

    def keyboard_layout(self) -> str | None:
        """The layout as layout+variant+options; None when the X server does not say."""
        name = b"_XKB_RULES_NAMES"
        padded = name.ljust(-(-len(name) // 4) * 4, b"\0")
        head = struct.pack("<BBHHxx", _INTERN_ATOM, 1, 2 + len(padded) // 4, len(name))
        try:
            self.connection.sendall(head + padded)
            (atom,) = struct.unpack_from("<I", _reply(self.connection), 8)
            if not atom:
                return None
            ask = (_GET_PROPERTY, 0, 6, self._root, atom, 0, 0, _MAX_PROPERTY)
            self.connection.sendall(struct.pack("<BBHIIIII", *ask))
            answer = _reply(self.connection)
        except OSError:
            return None
        (length,) = struct.unpack_from("<I", answer, 16)
        return layout_of(answer[_REPLY : _REPLY + length])


def parse(text: str) -> Display:
    """A display from DISPLAY's text, [HOST]:NUMBER[.SCREEN].

    Raises:
        DisplayError: it is not as it should be.
    """
    host, colon, rest = text.rpartition(":")
    number = rest.partition(".")[0]
    if not colon or not number.isascii() or not number.isdigit():
        raise DisplayError(f"DISPLAY is {text!r}, which names no X server")
    return Display(text, "" if host in ("", "unix") else host, int(number))


def layout_of(rules_names: bytes) -> str | None:
    """The layout from _XKB_RULES_NAMES: rules, model, layouts, variants, options.

    Of several layouts the first; options that switch between layouts are left out.
    """
    fields = rules_names.decode("ascii", "replace").split("\0")
    if len(fields) < 5 or not fields[2]:
        return None
    layout, variant = (field.partition(",")[0] for field in fields[2:4])
    options = ",".join(one for one in fields[4].split(",") if one and not one.startswith("grp:"))
    return f"{layout}+{variant}+{options}"


def _greet(connection: socket.socket, display: Display) -> int:
    """Begin the protocol; returns the first root window."""
    allowed = display.authorization()
    hello = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(allowed.name), len(allowed.data))
    for field in (allowed.name, allowed.data):
        hello += field.ljust(-(-len(field) // 4) * 4, b"\0")
    connection.sendall(hello)
    success, reason_length, _, _, units = _GREETING.unpack(_exactly(connection, _GREETING.size))
    if units * 4 > _MAX_SETUP:
        raise DisplayError(f"the X server {display.text} does not speak X11")
    rest = _exactly(connection, units * 4)
    if success != 1:
        reason = rest[:reason_length].decode("latin-1").strip()
        error = DisplayError(f"the X server {display.text} refuses us: {reason}")
        error.hint = f"Its cookie is looked for in {xauthority.path()}."
        raise error
    greeting = _GREETING.pack(success, reason_length, 11, 0, units) + rest
    (vendor,) = struct.unpack_from("<H", greeting, 24)
    formats = greeting[29]
    (root,) = struct.unpack_from("<I", greeting, _ROOTS_AT + -(-vendor // 4) * 4 + 8 * formats)
    return int(root)


def _reply(connection: socket.socket) -> bytes:
    """The next reply; an error counts as no answer."""
    head = _exactly(connection, _REPLY)
    while head[0] > 1:  # an event: every client is told of a new keyboard mapping
        head = _exactly(connection, _REPLY)
    if head[0] != 1:
        raise ConnectionError("the X server refused")
    (units,) = struct.unpack_from("<I", head, 4)
    if units * 4 > _MAX_SETUP:
        raise ConnectionError("the X server answers too much")
    return head + _exactly(connection, units * 4)


def _exactly(connection: socket.socket, size: int) -> bytes:
    out = b""
    while len(out) < size:
        chunk = connection.recv(size - len(out))
        if not chunk:
            raise ConnectionError("it closed the connection")
        out += chunk
    return out
