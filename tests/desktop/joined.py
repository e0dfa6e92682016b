"""Helpers of the desktop tests: X servers, programs on them, and a joined agent and viewer."""

import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import xcffib
import xcffib.xproto

from insula.protocol.gui.geometry import Rect
from tests.desktop.host import BLUE, Host, JailedViewer

SOURCES = Path(__file__).parents[2] / "src"
TIMEOUT = 20.0  # seconds for anything that a test waits for
REGION_SIZE = 64 * 1024 * 1024
# For an xterm: a person's shell may set titles. One that is ended very early leaves it behind.
LASTING = ("-e", "sleep", "100")
_F_ADD_SEALS, _F_SEAL_SHRINK = 1033, 2
Value = TypeVar("Value")


def wait_for(condition: Callable[[], Value | None], what: str) -> Value:
    """The first true value of condition.

    Raises:
        AssertionError: there is none within TIMEOUT.
    """
    deadline = time.monotonic() + TIMEOUT
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@contextmanager
def running(
    arguments: list[str], environment: dict[str, str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A program for the length of the block."""
    process = subprocess.Popen(arguments, env={**os.environ, **environment}, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class TopLevel:
    """A viewer's frame on the desktop. Positions are the root's."""

    frame: int
    title: str
    outer: Rect


class XServer:
    """An Xvfb and a connection of the test's own to it."""

    def __init__(self, display: str) -> None:
        self.display = display
        library: Any = xcffib  # it comes without types
        self.connection: Any = library.connect(display=display)
        self.core: Any = self.connection.core
        self.root: int = self.connection.get_setup().roots[0].root

    @classmethod
    @contextmanager
    def started(cls, screen: str, *more: str) -> Iterator["XServer"]:
        """An X server on a display number of its own choice, with more of its arguments."""
        read, write = os.pipe()
        arguments = ["Xvfb", "-displayfd", str(write), "-screen", "0", screen, "-nolisten", "tcp"]
        arguments += more
        with (
            running(arguments, {}, pass_fds=[write], stderr=subprocess.DEVNULL),
            os.fdopen(read) as numbers,
        ):
            os.close(write)
            server = cls(f":{int(numbers.readline())}")
            yield server
            server.connection.disconnect()

    @contextmanager
    def program(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A program on this display."""
        with running(list(arguments), {"DISPLAY": self.display}, **options) as process:
            yield process

    def run(self, *arguments: str) -> str:
        """The output of a program on this display that ends by itself."""
        environment = {**os.environ, "DISPLAY": self.display}
        done = subprocess.run(
            arguments, env=environment, check=True, capture_output=True, text=True, timeout=TIMEOUT
        )
        return done.stdout

    def connect(self) -> socket.socket:
        """A fresh connection for a client that gets it as a descriptor."""
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(f"/tmp/.X11-unix/X{self.display[1:]}")
        return connected

    def atom(self, name: str) -> int:
        reply = self.core.InternAtom(False, len(name), name).reply()
        return int(reply.atom)

    def property(self, window: int, name: str) -> bytes:
        """The bytes of a property; empty without it, or without the window."""
        try:
            reply = self.core.GetProperty(False, window, self.atom(name), 0, 0, 65536).reply()
        except xcffib.XcffibException:
            return b""
        return bytes(reply.value.raw)

    def words(self, window: int, name: str) -> tuple[int, ...]:
        raw = self.property(window, name)
        return struct.unpack(f"={len(raw) // 4}I", raw)

    def wait_for_window_manager(self) -> None:
        wait_for(lambda: self.words(self.root, "_NET_SUPPORTING_WM_CHECK"), "a window manager")
        wait_for(lambda: self.words(self.root, "_NET_WORKAREA"), "a work area")

    def geometry(self, window: int) -> Rect:
        """A window's rectangle in the root's coordinates."""
        size = self.core.GetGeometry(window).reply()
        place = self.core.TranslateCoordinates(window, self.root, 0, 0).reply()
        return Rect(place.dst_x, place.dst_y, size.width, size.height)

    def viewable(self, window: int) -> bool:
        reply = self.core.GetWindowAttributes(window).reply()
        return bool(reply.map_state == xcffib.xproto.MapState.Viewable)

    def descendants(self, window: int) -> Iterator[int]:
        """All windows below one."""
        for child in self.core.QueryTree(window).reply().children:
            yield child
            yield from self.descendants(child)

    def framed(self, title: str) -> TopLevel | None:
        """The visible window of a viewer whose title contains title."""
        with suppress(xcffib.XcffibException):
            for window in self.descendants(self.root):
                if not self.property(window, "_QUBES_VMNAME") or not self.viewable(window):
                    continue
                name = self.property(window, "_NET_WM_NAME").decode()
                if title in name:
                    return TopLevel(window, name, self.geometry(window))
        return None

    def pixels(self, rect: Rect) -> list[list[int]]:
        """What the screen shows in a rectangle: rows of 0xRRGGBB."""
        reply = self.core.GetImage(2, self.root, *rect, 0xFFFFFFFF).reply()
        raw = bytes(reply.data.raw)
        words = struct.unpack(f"<{rect.width * rect.height}I", raw)
        return [
            [word & 0xFFFFFF for word in words[y * rect.width : (y + 1) * rect.width]]
            for y in range(rect.height)
        ]


def ring(rows: list[list[int]], border: int) -> set[int]:
    """The colours on the outer border pixels of an image."""
    edge = {colour for row in rows[:border] + rows[-border:] for colour in row}
    for row in rows[border:-border]:
        edge.update(row[:border] + row[-border:])
    return edge


def inside(rows: list[list[int]], border: int) -> set[int]:
    """The colours within the border of an image."""
    return {colour for row in rows[border:-border] for colour in row[border:-border]}


@dataclass(slots=True)
class Joined:
    """An agent on the qube's display and a jailed viewer on the desktop's."""

    host: Host
    desktop: XServer
    qube: XServer
    directory: Path  # where the agent writes its status
    uuid: UUID
    viewer: JailedViewer
    agent: subprocess.Popen[bytes]
    options: dict[str, object] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def started(
        cls, host: Host, desktop: XServer, qube: XServer, directory: Path, **options: object
    ) -> Iterator["Joined"]:
        uuid = uuid4()
        with running_agent(host, qube, directory, uuid) as agent:
            status = directory / "gui-agent.status"
            viewer = host.open(uuid, desktop.display, **options)
            made = cls(host, desktop, qube, directory, uuid, viewer, agent, options)
            try:
                wait_for(lambda: status.read_text() == "connected\n", "the viewer")
                yield made
            finally:
                host.call(host.viewers.close(uuid))
                os.close(made.viewer.pidfd)

    def open_again(self) -> None:
        """Open another viewer; one that is still there is replaced."""
        os.close(self.viewer.pidfd)
        self.viewer = self.host.open(self.uuid, self.desktop.display, **self.options)

    def shown(self, title: str) -> TopLevel:
        """Wait for a window on the desktop."""
        return wait_for(lambda: self.desktop.framed(title), f"a window {title!r}")


@contextmanager
def running_agent(
    host: Host, qube: XServer, directory: Path, uuid: UUID
) -> Iterator[subprocess.Popen[bytes]]:
    """A window agent where the machine of a qube would be, waiting for a viewer."""
    sockets = host.run / "qubes" / str(uuid)
    sockets.mkdir(parents=True)
    region = make_region()
    host.call(host.keeper.hold(f"pixels/qube-{uuid}", region))
    try:
        with agent_on(qube, directory, sockets / "gui.sock", region) as agent:
            yield agent
    finally:
        os.close(region)
        host.forget_pixels(uuid)


@contextmanager
def agent_on(
    qube: XServer, directory: Path, path: Path, region: int, **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A window agent that listens on a socket; more: of its environment."""
    environment = {
        "DISPLAY": qube.display,
        "INSULA_GUI_SOCKET": str(path),
        "INSULA_PIXELS": f"/proc/{os.getpid()}/fd/{region}",
        "INSULA_GUI_RUN": str(directory),
        "INSULA_SERVICES": str(directory),
        "PYTHONPATH": str(SOURCES),
        **more,
    }
    python = os.environ.get("INSULA_TEST_AGENT_PYTHON", sys.executable)
    with running([python, "-m", "insula.guest.gui"], environment) as agent:
        status = directory / "gui-agent.status"
        wait_for(lambda: status.exists() and status.read_text() == "started\n", "the agent")
        yield agent


def make_region() -> int:
    """A descriptor of a sealed memfd, as the keeper makes it."""
    region = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(region, REGION_SIZE)
    fcntl.fcntl(region, _F_ADD_SEALS, _F_SEAL_SHRINK)
    return region


@contextmanager
def viewer_on(
    desktop: XServer,
    channel: socket.socket,
    region: int,
    options: dict[str, object],
    *,
    plain: bool = False,
    **more: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A viewer of the qube work on a channel that is connected already."""
    config = {"name": "work", "color": f"{BLUE:06x}", "label": 6, "options": options}
    with desktop.connect() as connected:
        descriptors = [connected.fileno(), channel.fileno(), region]
        arguments = [sys.executable, "-m", "insula.viewer", "--config", json.dumps(config)]
        for option, number in zip(
            ("--x-fd", "--channel-fd", "--pixels-fd"), descriptors, strict=True
        ):
            arguments += [option, str(number)]
        if plain:
            arguments += ["--channel-kind", "plain"]
        environment = {"PYTHONPATH": str(SOURCES)}
        with running(arguments, environment, pass_fds=descriptors, **more) as process:
            connected.close()
            yield process


def fill(region: int, page: int, colour: int, count: int) -> None:
    """Fill pixels of a region from the start of a page on."""
    with mmap.mmap(region, REGION_SIZE) as memory:
        memory[page * 4096 : page * 4096 + 4 * count] = struct.pack("<I", colour) * count
