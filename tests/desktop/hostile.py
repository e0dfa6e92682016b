"""The qube's end of a viewer's channel in the hands of a test, which may send what it likes."""

import contextlib
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.handshake import ANSWER_SIZE, agent_opening
from insula.protocol.gui.messages import (
    AgentMessage,
    Create,
    Destroy,
    Map,
    ShmImage,
    WindowDump,
    WindowName,
    encode,
)
from insula.protocol.gui.stream import take_from_viewer
from insula.protocol.resync import MARKER_SIZE
from tests.desktop.joined import (
    TIMEOUT,
    TopLevel,
    XServer,
    fill,
    make_region,
    viewer_on,
    wait_for,
)

RED = 0xFF0001
LAST = 0xFFFF_FFF0
XCONF_SIZE = 16


class Hostile:
    """The qube's end of a viewer's channel, in the hands of the test."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.process: subprocess.Popen[bytes] | None = None
        self._log: Any = None
        self._received = bytearray()
        self.heard: list[Any] = []
        self.greeting = b""  # what the viewer answered

    @classmethod
    @contextlib.contextmanager
    def against(
        cls, desktop: XServer, region: int, *, minor: int | None = None, **options: object
    ) -> Iterator["Hostile"]:
        """An agent; with a minor version one on a plain channel, as others' agents are."""
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT)
        plain = minor is not None
        with (
            ours,
            theirs,
            tempfile.TemporaryFile() as log,
            viewer_on(desktop, theirs, region, options, plain=plain, stderr=log) as process,
        ):
            theirs.close()
            hostile = cls(ours)
            hostile.process, hostile._log = process, log
            if minor is None:
                hostile.greet()
            else:
                ours.sendall(struct.pack("<I", 1 << 16 | minor))
                hostile.greeting = hostile._exactly(ANSWER_SIZE if minor >= 4 else XCONF_SIZE)
            yield hostile

    def greet(self) -> None:
        """Begin a session, as an agent of ours does."""
        marker = self._exactly(MARKER_SIZE)
        self.channel.sendall(b"stale bytes" + marker + agent_opening())
        self.greeting = self._exactly(ANSWER_SIZE)

    def _exactly(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            out += self.channel.recv(size - len(out))
        return out

    def send(self, *messages: AgentMessage) -> None:
        """Send messages; a viewer that has ended by now does not matter here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.channel.sendall(b"".join(encode(message) for message in messages))

    def settle(self) -> bool:
        """Whether the viewer took everything; False when it ended instead. Since 1.5."""
        self.send(Create(LAST, 0, 0, 1, 1, 0, 0), Destroy(LAST))
        try:
            while chunk := self.channel.recv(65536):
                self._received += chunk
                while (message := take_from_viewer(self._received)) is not None:
                    if isinstance(message, Destroy) and message.window == LAST:
                        return True
                    self.heard.append(message)
        except ConnectionResetError:
            pass
        return False

    def received(self, kind: type) -> Any:
        """Wait for a message of a kind; what came before it is kept in heard."""
        while True:
            while (message := take_from_viewer(self._received)) is not None:
                self.heard.append(message)
                if isinstance(message, kind):
                    return message
            self._received += self.channel.recv(65536)

    def outcome(self) -> tuple[int, list[str]]:
        """Close the channel; the viewer's exit code and its log."""
        assert self.process is not None
        self.channel.close()
        code = self.process.wait(TIMEOUT)
        self._log.seek(0)
        return code, self._log.read().decode().splitlines()


def red_region() -> int:
    """A region whose first 4 MiB are one colour that nothing else has."""
    descriptor = make_region()
    fill(descriptor, 0, RED, 1024 * 1024)
    return descriptor


def framed(desktop: XServer) -> list[tuple[Rect, bool]]:
    """Viewers' frames on the screen, and whether each is frameless for the window manager."""
    out = []
    for window in desktop.descendants(desktop.root):
        if desktop.property(window, "_QUBES_VMNAME") and desktop.viewable(window):
            attributes = desktop.core.GetWindowAttributes(window).reply()
            out.append((desktop.geometry(window), bool(attributes.override_redirect)))
    return out


def live(window: int, override: int) -> list[AgentMessage]:
    """Messages that put a window with pixels on the screen."""
    return [
        Create(window, 100 * window, 80 * window, 300, 200, 0, override),
        Map(window, 0, override),
        WindowDump(window, 512, 512, 32, tuple(range(256))),
        ShmImage(window, 0, 0, 512, 512),
    ]


def window(number: int, rect: Rect, title: bytes, override: int = 0) -> list[AgentMessage]:
    """Messages that put a window with a title and pixels on the screen."""
    return [
        Create(number, *rect, 0, override),
        WindowName(number, title),
        Map(number, 0, override),
        WindowDump(number, 512, 512, 32, tuple(range(256))),
        ShmImage(number, 0, 0, 512, 512),
    ]


def shown(desktop: XServer, title: str) -> TopLevel:
    """Wait for a window on the desktop."""
    return wait_for(lambda: desktop.framed(title), f"a window {title!r}")
