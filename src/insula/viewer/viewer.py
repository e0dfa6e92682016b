"""The viewer's loop: the X server on one side, the qube on the other, neither waited for alone."""

import select
import socket
import time

from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.limits import BYTES_PER_PIXEL
from insula.protocol.gui.messages import AgentMessage, ClipboardData, ShmImage, ViewerMessage
from insula.protocol.gui.stream import ClipboardTooLongError
from insula.viewer.channel import Channel
from insula.viewer.clipboard import Clipboard
from insula.viewer.config import Config
from insula.viewer.delay import Delay
from insula.viewer.desktop import Desktop
from insula.viewer.input import Input
from insula.viewer.region import Region
from insula.viewer.restraint import Bucket, Log
from insula.viewer.session_link import SessionLink
from insula.viewer.shm import Canvas
from insula.viewer.window import Window
from insula.viewer.windows import Source, Windows

_FRAME = 1 / 60  # seconds between two rounds of drawing
_BURST = 2_000  # messages other than SHMIMAGE that a qube may send at once
_RATE = 500  # and after that, a second


class Viewer:
    """One qube's."""

    def __init__(
        self,
        desktop: Desktop,
        connected: socket.socket,
        region: Region,
        config: Config,
        log: Log,
        *,
        link: SessionLink,
        plain: bool,
    ) -> None:
        self._desktop = desktop
        self._region = region
        self._canvas = Canvas(desktop.connection, desktop.context, desktop.depth)
        if not self._canvas.shared:
            log.write("no shared memory with the X server, drawing is slower")
        size = desktop.size
        self._channel = Channel(connected, size.width, size.height, desktop.depth, plain=plain)
        self._link = link
        self._clipboard = Clipboard(desktop, config, log, link=link, send=self._send)
        self._windows = Windows(desktop, config, region, log, link=link, send=self._send)
        self._input = Input(desktop, self._windows, self._clipboard, self._send)
        self._delay = Delay(config.events_max_delay)
        self._bucket = Bucket(_BURST, _RATE)
        self._pending: AgentMessage | None = None  # taken, but over the rate
        self._resume = 0.0  # when it may be handled
        self._next_frame = 0.0
        self._poller = select.poll()
        self._listening: int | None = None  # the link's descriptor

    def run(self) -> None:
        """Serve until something ends it.

        Raises:
            ChannelClosedError: the qube's end of the channel is gone.
            ProtocolError: the qube broke the protocol.
            DesktopError, xcffib.ConnectionException: the X server refused, or is gone.
        """
        while True:
            self._take_answers()
            self._take_messages()
            self._draw()
            if self._clipboard.holds_input_until is None:
                self._take_events()
            self._channel.flush()
            self._desktop.connection.flush()
            self._wait()

    def _send(self, message: ViewerMessage) -> None:
        self._channel.send(message)

    def _wait(self) -> None:
        held = self._clipboard.holds_input_until is not None
        connection = self._desktop.connection.get_file_descriptor()
        self._poller.register(connection, 0 if held else select.POLLIN)
        self._listen_to_session()
        reads = self._pending is None and not self._windows.suspicions.waits
        interest = select.POLLIN if reads else 0
        if self._channel.unsent:
            interest |= select.POLLOUT
        self._poller.register(self._channel.fileno(), interest)
        timeout = self._timeout()
        ready = self._poller.poll(None if timeout is None else timeout * 1000)
        readable = select.POLLIN | select.POLLHUP | select.POLLERR
        for descriptor, events in ready:
            if descriptor == self._channel.fileno() and events & readable:
                self._channel.receive()

    def _listen_to_session(self) -> None:
        descriptor = self._link.fileno()
        if self._listening is not None and descriptor is None:
            self._poller.unregister(self._listening)
        if descriptor is not None:
            sends = select.POLLOUT if self._link.unsent else 0
            self._poller.register(descriptor, select.POLLIN | sends)
        self._listening = descriptor

    def _take_answers(self) -> None:
        self._link.flush()
        for record in self._link.receive():
            if record.fields.get("op") == "go_on":
                self._windows.suspicions.go_on()
            else:
                self._clipboard.answered(record)

    def _timeout(self) -> float | None:
        """Seconds until there is something to do without an event; None when there is nothing."""
        waits = self._windows.suspicions.waits
        due = [self._resume] if self._pending is not None and not waits else []
        if self._clipboard.holds_input_until is not None:
            due.append(self._clipboard.holds_input_until)
        if any(window.dirty is not None for window in self._windows.all()):
            due.append(self._next_frame)
        if self._delay.due is not None:
            due.append(self._delay.due)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take_messages(self) -> None:
        now = time.monotonic()
        while not self._windows.suspicions.waits:
            message = self._pending or self._take_message()
            if message is None:
                return
            if not isinstance(message, ShmImage):  # these only add up to one drawing a frame
                wait = self._bucket.wait(now)
                if wait > 0:
                    self._pending, self._resume = message, now + wait
                    return
                self._bucket.take()
            self._pending = None
            if isinstance(message, ClipboardData):
                self._clipboard.received(message)
            else:
                self._windows.handle(message)

    def _take_message(self) -> AgentMessage | None:
        try:
            message = self._channel.take()
        except ClipboardTooLongError as error:
            self._clipboard.malformed(error.size)
            raise
        self._clipboard.minor = self._channel.minor or 0
        return message

    def _take_events(self) -> None:
        for event in self._delay.over(time.monotonic()):
            self._input.handle(event)
        # Handling an event may read a reply, and with it further events: until none are left.
        while events := self._desktop.events():
            for event in self._delay.pass_on(events, time.monotonic()):
                self._input.handle(event)
            self._input.settle()

    def _draw(self) -> None:
        now = time.monotonic()
        if now < self._next_frame:
            return
        for window in self._windows.all():
            if window.dirty is not None:
                self._next_frame = now + _FRAME
                source = self._windows.source(window)
                part = window.drawable_part(source.bounds if source else None)
                if window.docked:
                    part = self._windows.tray.part(window, part)
                if source is not None and part is not None:
                    self._draw_part(window, source, part)
                if window.docked:
                    self._windows.tray.draw_border(window)

    def _draw_part(self, window: Window, source: Source, part: Rect) -> None:
        """Copy a part of the qube's image to the screen, in strips of whole rows."""
        image, bounds = source
        rows = max(1, self._canvas.size // (part.width * BYTES_PER_PIXEL))
        at = window.content_offset()
        for top in range(part.y, part.bottom, rows):
            height = min(rows, part.bottom - top)
            strip = Rect(part.x - bounds.x, top - bounds.y, part.width, height)
            pixels = self._canvas.strip()
            self._region.copy(image, strip, pixels)
            if window.docked:
                size = part.width * height * BYTES_PER_PIXEL
                self._windows.tray.colour(pixels[:size], self._region.first_pixel(image))
            self._canvas.put(window.content, part.x - at, top - at, part.width, height)
