"""The windows of qubes on a display, as any other X client sees them; and a picture of it."""

import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import xcffib
import xcffib.xproto

from insula.protocol.errors import ReportableError

_POLL = 0.02  # seconds
_MAX_WORDS = 4096  # of a property, 32-bit units
_ALL_PLANES = 0xFFFF_FFFF
_ROWS_AT_ONCE = 64
_Z_PIXMAP = 2
_MASK = 0x180000  # SubstructureRedirect and SubstructureNotify: to the window manager
_FROM_PAGER = 2
_GEOMETRY_GIVEN = 0xF00  # x, y, width and height, of _NET_MOVERESIZE_WINDOW
_NORTH_WEST = 1
_GAP = 24  # pixels between arranged windows
_FRAME = 4  # pixels of a viewer's frame, which is of one colour


class Shown(NamedTuple):
    """A window of a qube; place and size in pixels, the viewer's frame included."""

    window: int
    qube: str
    title: str
    x: int
    y: int
    width: int
    height: int


class Screen:
    """A connection to a display."""

    def __init__(self, display: str) -> None:
        """Raises: ReportableError: the X server does not answer."""
        library: Any = xcffib  # it comes without types
        try:
            self._connection: Any = library.connect(display=display)
        except library.ConnectionException as error:
            raise ReportableError(f"the X server {display} does not answer") from error
        self._core: Any = self._connection.core
        self._screen = self._connection.get_setup().roots[0]
        self._atoms: dict[str, int] = {}

    def windows(self) -> list[Shown]:
        """What is shown of all qubes."""
        return list(self._shown(self._screen.root))

    def first_of(self, qube: str, timeout: float) -> Shown:
        """Wait for a qube's window.

        Raises:
            ReportableError: there is none within timeout seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for shown in self.windows():
                if shown.qube == qube:
                    return shown
            time.sleep(_POLL)
        raise ReportableError(f"no window of {qube} appeared within {timeout:.0f} s")

    def arrange(self, columns: list[list[Shown]]) -> None:
        """Place windows side by side; those of one column below one another."""
        _, _, full_width, full_height = self._work_area()
        width = full_width // max(1, len(columns))
        for at, column in enumerate(columns):
            height = full_height // len(column)
            for row, shown in enumerate(column):
                self._place(shown.window, at * width, row * height, width, height)
        self._connection.flush()

    def drawn(self, shown: Shown, timeout: float) -> bool:
        """Wait until there is more than one colour within a window's frame."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for now in self.windows():
                if now.window == shown.window and self._has_colours(now):
                    return True
            time.sleep(5 * _POLL)
        return False

    def close(self, shown: Shown) -> None:
        """Ask the window manager to close a window, as a click on its button does."""
        self._tell(shown.window, "_NET_CLOSE_WINDOW", 0, _FROM_PAGER)
        self._connection.flush()

    def save(self, path: Path) -> None:
        """Write a picture of all of the screen as PNG."""
        width, height = self._screen.width_in_pixels, self._screen.height_in_pixels
        rows = []
        for top in range(0, height, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, height - top)
            raw = self._pixels(self._screen.root, 0, top, width, count)
            for start in range(0, len(raw), width * 4):
                rows.append(b"\0" + _rgb(raw[start : start + width * 4]))
        path.write_bytes(png(width, height, b"".join(rows)))

    def _shown(self, parent: int) -> Iterator[Shown]:
        for window in self._answer(self._core.QueryTree(parent), "children", ()):
            name = self._property(window, "_QUBES_VMNAME").decode("ascii", "replace")
            attributes = self._core.GetWindowAttributes(window)
            if self._answer(attributes, "map_state", 0) != xcffib.xproto.MapState.Viewable:
                continue
            if not name:
                yield from self._shown(window)
                continue
            title = self._property(window, "_NET_WM_NAME").decode("utf-8", "replace")
            place = self._place_of(window)
            if place is not None:
                yield Shown(window, name, title, *place)

    def _place_of(self, window: int) -> tuple[int, int, int, int] | None:
        root = self._screen.root
        try:
            size = self._core.GetGeometry(window).reply()
            place = self._core.TranslateCoordinates(window, root, 0, 0).reply()
        except xcffib.XcffibException:
            return None
        return place.dst_x, place.dst_y, size.width, size.height

    def _has_colours(self, shown: Shown) -> bool:
        left, top = max(0, shown.x + _FRAME), max(0, shown.y + _FRAME)
        right = min(self._screen.width_in_pixels, shown.x + shown.width - _FRAME)
        bottom = min(self._screen.height_in_pixels, shown.y + shown.height - _FRAME)
        if right <= left or bottom <= top:
            return False
        raw = self._pixels(self._screen.root, left, top, right - left, bottom - top)
        return raw != raw[:4] * (len(raw) // 4)

    def _place(self, window: int, x: int, y: int, width: int, height: int) -> None:
        left, right, top, bottom = self._decoration(window)
        area_x, area_y, _, _ = self._work_area()
        self._tell(
            window,
            "_NET_MOVERESIZE_WINDOW",
            _NORTH_WEST | _GEOMETRY_GIVEN | _FROM_PAGER << 12,
            area_x + x + _GAP // 2,
            area_y + y + _GAP // 2,
            max(1, width - _GAP - left - right),
            max(1, height - _GAP - top - bottom),
        )

    def _decoration(self, window: int) -> tuple[int, int, int, int]:
        words = self._words(window, "_NET_FRAME_EXTENTS")
        if len(words) != 4:
            return 0, 0, 0, 0
        return words[0], words[1], words[2], words[3]

    def _work_area(self) -> tuple[int, int, int, int]:
        words = self._words(self._screen.root, "_NET_WORKAREA")
        if len(words) < 4 or not words[2] or not words[3]:
            return 0, 0, self._screen.width_in_pixels, self._screen.height_in_pixels
        return words[0], words[1], words[2], words[3]

    def _tell(self, window: int, name: str, *words: int) -> None:
        """Send a client message about a window to the root."""
        padded = (*words, 0, 0, 0, 0, 0)[:5]
        event = struct.pack("=BBHII5I", 33, 32, 0, window, self._atom(name), *padded)
        self._core.SendEvent(False, self._screen.root, _MASK, event)

    def _pixels(self, window: int, x: int, y: int, width: int, height: int) -> bytes:
        reply = self._core.GetImage(_Z_PIXMAP, window, x, y, width, height, _ALL_PLANES).reply()
        return bytes(reply.data.raw)

    def _words(self, window: int, name: str) -> tuple[int, ...]:
        raw = self._property(window, name)
        return struct.unpack_from(f"={len(raw) // 4}I", raw)

    def _property(self, window: int, name: str) -> bytes:
        cookie = self._core.GetProperty(False, window, self._atom(name), 0, 0, _MAX_WORDS)
        value = self._answer(cookie, "value", None)
        return b"" if value is None else bytes(value.raw)

    def _answer(self, cookie: Any, field: str, otherwise: Any) -> Any:
        """A field of a reply; otherwise when the window is gone meanwhile."""
        try:
            return getattr(cookie.reply(), field)
        except xcffib.ConnectionException as error:
            raise ReportableError("the X server is gone") from error
        except xcffib.XcffibException:
            return otherwise

    def _atom(self, name: str) -> int:
        if name not in self._atoms:
            self._atoms[name] = self._core.InternAtom(False, len(name), name).reply().atom
        return self._atoms[name]


def png(width: int, height: int, rows: bytes) -> bytes:
    """A picture of 8-bit red, green, blue; each row begins with its filter's number."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _rgb(raw: bytes) -> bytes:
    """Red, green, blue of pixels that are blue, green, red, unused."""
    out = bytearray(len(raw) // 4 * 3)
    out[0::3], out[1::3], out[2::3] = raw[2::4], raw[1::4], raw[0::4]
    return bytes(out)
