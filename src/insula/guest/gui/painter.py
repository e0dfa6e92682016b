"""From damage to dumps: window contents into the pixel region (gui.md section 4.1)."""

from collections import deque
from collections.abc import Callable

from insula.guest.gui.display import Display
from insula.guest.gui.region import Buffer, Region
from insula.guest.gui.shm import SIZE
from insula.guest.gui.window import Window
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.handshake import MINOR
from insula.protocol.gui.limits import BYTES_PER_PIXEL, MAX_HEIGHT, MAX_WIDTH
from insula.protocol.gui.messages import AgentMessage, ShmImage, WindowDump

_CONFIRMS_DESTROY, _CONFIRMS_DUMPS = 5, 7  # minor versions
_Z_PIXMAP = 2
_ALL_PLANES = 0xFFFF_FFFF
_BITS_PER_PIXEL = 32


class Painter:
    """Copies what changed; knows which buffers the viewer may still read."""

    def __init__(
        self, display: Display, region: Region, send: Callable[[AgentMessage], None]
    ) -> None:
        self._display = display
        self._region = region
        self._send = send
        # What each dump not acknowledged yet replaced, oldest first.
        self._replaced: deque[Buffer | None] = deque()
        self._dying: list[tuple[int, Buffer]] = []
        self._minor = MINOR

    def restart(self, windows: list[Window], minor: int) -> None:
        """A new viewer, by its version's minor number: no buffer is in use any more."""
        self._minor = minor
        self._replaced.clear()
        self._dying.clear()
        self._region.forget_buffers()
        for window in windows:
            window.buffer = None

    def acknowledged(self) -> None:
        """The viewer took the oldest dump: what that dump replaced is free."""
        old = self._replaced.popleft() if self._replaced else None
        if old is not None:
            self._region.release(old)

    def window_gone(self, window: Window) -> None:
        """Keep the buffer of a destroyed window until the viewer confirms."""
        if window.pixmap:
            self._display.core.FreePixmap(window.pixmap)
        if window.buffer is not None:
            self._dying.append((window.id, window.buffer))
            if self._minor < _CONFIRMS_DESTROY:
                self.destroy_confirmed(window.id)

    def destroy_confirmed(self, window: int) -> None:
        """The viewer has forgotten a destroyed window."""
        for at, (dead, buffer) in enumerate(self._dying):
            if dead == window:
                self._region.release(buffer)
                del self._dying[at]
                return

    def paint(self, window: Window) -> None:
        """Send what changed in a mapped window; a window that cannot be read is left out."""
        damaged = window.whole if window.wants_dump else window.damaged
        window.damaged = None
        if damaged is None or not window.damage:
            return
        if window.wants_dump and not self._dump(window):
            return
        rectangle = damaged.intersect(window.whole)
        self._display.damage.Subtract(window.damage, 0, 0)
        if rectangle is not None and window.buffer is not None and self._copy(window, rectangle):
            self._send(ShmImage(window.id, *rectangle))

    def _dump(self, window: Window) -> bool:
        """Give the window a new buffer; whether there was room for one."""
        width, height = window.geometry[2:]
        if width > MAX_WIDTH or height > MAX_HEIGHT:
            return False
        buffer = self._region.allocate(width, height)
        if buffer is None:
            return False
        if window.pixmap:
            self._display.core.FreePixmap(window.pixmap)
        window.pixmap = self._display.connection.generate_id()
        self._display.composite.NameWindowPixmap(window.shown, window.pixmap)
        self._replaced.append(window.buffer)
        window.buffer = buffer
        window.wants_dump = False
        self._send(WindowDump(window.id, width, height, _BITS_PER_PIXEL, buffer.references))
        if self._minor < _CONFIRMS_DUMPS:
            self.acknowledged()
        return True

    def _copy(self, window: Window, part: Rect) -> bool:
        """Copy a rectangle into the window's buffer, in strips; whether the X server had it."""
        assert window.buffer is not None
        x, y, width, height = part
        rows = SIZE // (width * BYTES_PER_PIXEL)
        segment = self._display.segment
        for top in range(y, y + height, rows):
            count = min(rows, y + height - top)
            cookie = self._display.shm.GetImage(
                window.pixmap, x, top, width, count, _ALL_PLANES, _Z_PIXMAP, segment.id, 0
            )
            reply = self._display.reply(cookie)
            if reply is None or reply.size != width * count * BYTES_PER_PIXEL:
                return False  # resized or gone meanwhile: its event brings a new dump
            strip = Rect(x, top, width, count)
            self._region.write(window.buffer, strip, segment.memory)
        return True
