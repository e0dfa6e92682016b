"""The agent's loop: one session after another, X events out, the viewer's messages in."""

import enum
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from insula.guest.gui.channel import Channel
from insula.guest.gui.clipboard import Clipboard
from insula.guest.gui.commands import Commands
from insula.guest.gui.cursors import Cursors
from insula.guest.gui.display import Display
from insula.guest.gui.keyboard import Input, set_layout
from insula.guest.gui.painter import Painter
from insula.guest.gui.region import Region
from insula.guest.gui.tray import Tray
from insula.guest.gui.windows import Windows
from insula.guest.gui.xlib import xcffib
from insula.protocol.errors import ProtocolError
from insula.protocol.gui.handshake import ANSWER_SIZE, agent_accepts, agent_opening
from insula.protocol.gui.messages import AgentMessage, Motion, ViewerMessage, encode
from insula.protocol.gui.sessions import SessionScanner
from insula.protocol.gui.stream import take_from_viewer
from insula.protocol.resync import WINDOW_PREFIX

_X = xcffib.xproto
_FRAME = 1 / 60  # seconds between two captures
_MAX_UNSENT = 262_144  # bytes; with more the viewer is behind, and captures wait


class _State(enum.Enum):
    NO_VIEWER = "started"
    HANDSHAKE = "handshake"
    CONNECTED = "connected"


class Agent:
    """Joins an X server, a pixel region and a channel."""

    def __init__(
        self,
        display: Display,
        region: Region,
        make_channel: Callable[[select.epoll], Channel],
        run_directory: Path,
        services: Path,
    ) -> None:
        self._poller = select.epoll()
        self._display = display
        self._x_descriptor = display.connection.get_file_descriptor()
        self._poller.register(self._x_descriptor, select.EPOLLIN)
        self._run_directory = run_directory
        self._state = _State.NO_VIEWER
        self._scanner = SessionScanner()
        self._received = bytearray()
        self._layout = "us++"
        self._next_frame = 0.0
        self._channel = make_channel(self._poller)
        self._painter = Painter(display, region, self._send)
        self._input = Input(display)
        self._windows = Windows(display, self._send, self._painter.window_gone)
        self._clipboard = Clipboard(display, services, self._send)
        self._cursors = Cursors(display, self._windows, self._send)
        self._tray = Tray(display, self._windows)
        self._commands = Commands(
            display,
            self._windows,
            self._painter,
            self._input,
            clipboard=self._clipboard,
            cursors=self._cursors,
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            _X.MappingNotifyEvent: lambda _: self._input.keyboard_changed(),
            _X.SelectionNotifyEvent: self._clipboard.notified,
            _X.SelectionRequestEvent: self._clipboard.requested,
            xcffib.xfixes.CursorNotifyEvent: self._cursors.changed,
        }

    def run(self) -> None:
        """Serve until the X server is gone.

        Raises:
            xcffib.ConnectionException: the X server is gone.
        """
        self._set_state(_State.NO_VIEWER)
        self._channel_ready()
        while True:
            self._take_x_events()
            self._paint()
            self._display.connection.flush()
            for descriptor, _ in self._poller.poll(self._timeout()):
                if self._channel.handles(descriptor):
                    self._channel_ready()

    def _send(self, message: AgentMessage) -> None:
        if self._state is _State.CONNECTED:
            self._channel.send(encode(message))

    def _take_x_events(self) -> None:
        # Handling an event may read a reply, and with it further events: until none are left.
        while events := self._display.events():
            for event in events:
                handler = self._handlers.get(type(event))
                if handler is not None:
                    handler(event)
                elif (
                    isinstance(event, _X.ClientMessageEvent) and self._display.stub == event.window
                ):
                    self._tray.asked(event)
                else:
                    self._windows.handle(event)

    def _damaged(self) -> list[Any]:
        if self._state is not _State.CONNECTED or self._channel.unsent > _MAX_UNSENT:
            return []
        return [window for window in self._windows if window.mapped and window.damaged]

    def _paint(self) -> None:
        damaged = self._damaged()
        now = time.monotonic()
        if damaged and now >= self._next_frame:
            self._next_frame = now + _FRAME
            for window in damaged:
                self._painter.paint(window)

    def _timeout(self) -> float | None:
        """Seconds until the next capture is due; None when only an event can bring one."""
        if not self._damaged():
            return None
        return max(0.0, self._next_frame - time.monotonic())

    def _channel_ready(self) -> None:
        self._channel.flush()
        belonging, connected, fresh = self._channel.receive()
        if self._channel.plain:
            if fresh:
                self._begin_session(b"")
        else:
            nonce, belonging = self._scanner.feed(belonging)
            if nonce is not None:
                self._begin_session(WINDOW_PREFIX + nonce)
        if self._state is not _State.NO_VIEWER:
            self._received += belonging
        try:
            self._take_messages()
        except ProtocolError as error:
            print(f"viewer refused: {error}", flush=True)
            self._channel.hang_up()
            connected = False
        if not connected:
            self._end_session()

    def _begin_session(self, marker: bytes) -> None:
        self._end_session()
        self._state = _State.HANDSHAKE
        self._channel.send(marker + agent_opening())

    def _end_session(self) -> None:
        self._channel.drop_unsent()
        self._received.clear()
        if self._state is _State.CONNECTED:
            self._input.release_all_but(bytes(32))  # nobody will say when they are let go
        if self._state is not _State.NO_VIEWER:
            self._set_state(_State.NO_VIEWER)

    def _set_state(self, state: _State) -> None:
        self._state = state
        write_status(self._run_directory, state.value)

    def _take_messages(self) -> None:
        if self._state is _State.HANDSHAKE and len(self._received) >= ANSWER_SIZE:
            minor, _ = agent_accepts(bytes(self._received[:ANSWER_SIZE]))
            self._clipboard.minor = minor
            del self._received[:ANSWER_SIZE]
            self._layout = set_layout(self._run_directory / "keyboard-layout", self._layout)
            self._set_state(_State.CONNECTED)
            self._painter.restart(list(self._windows), minor)
            self._windows.replay()
        if self._state is _State.CONNECTED:
            messages: list[ViewerMessage] = []
            while (message := take_from_viewer(self._received)) is not None:
                if messages and isinstance(message, Motion) and isinstance(messages[-1], Motion):
                    messages[-1] = message  # only where the pointer came to rest matters
                else:
                    messages.append(message)
            for message in messages:
                self._commands.handle(message)


def write_status(run_directory: Path, status: str) -> None:
    """Replace the status file (section 8.8)."""
    temporary = run_directory / "gui-agent.status.new"
    temporary.write_text(f"{status}\n", encoding="ascii")
    os.replace(temporary, run_directory / "gui-agent.status")  # noqa: PTH105
