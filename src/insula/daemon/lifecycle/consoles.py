"""Consoles of running qubes, each as a terminal of the host's (admin-api.md section 4.2).

The qube's serial port is joined to one, and a root shell begins on it where none is yet: whoever
may open the terminal is dom0, and root in the qube anyhow.
"""

import asyncio
import logging
import os
import socket
import tty
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import NotRunningError
from insula.daemon.model.qube import PowerState, Qube
from insula.protocol.errors import ReportableError
from insula.protocol.qrexec import MessageType

# One at a time; it ends with the shell, and the next console begins another. An agent that is a
# process of the host is not to touch the host's serial line.
_SHELL = (
    "root:nogui:test -e /dev/virtio-ports/org.insula.control || exit; "
    "exec flock --nonblock --no-fork /run/insula-console.lock "
    "/sbin/agetty --autologin root --keep-baud 115200 ttyS0 linux"
)
_CHUNK = 4096  # bytes

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Console:
    """machine: of which it is. terminal: our end; other: the end that others open, and its path."""

    machine: object
    terminal: int
    other: int
    path: str
    end: socket.socket

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in (self.terminal, self.end.fileno()):
            loop.remove_reader(descriptor)
        os.close(self.terminal)
        os.close(self.other)
        self.end.close()


class Consoles:
    """The consoles that were asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._consoles: dict[UUID, _Console] = {}
        self._opening = asyncio.Lock()

    async def open(self, qube: Qube) -> str:
        """The path of a terminal that is a qube's console.

        Raises:
            NotRunningError: it does not run. ReportableError: its machine does not give it.
        """
        async with self._opening:
            running = self._world.running.get(qube.uuid)
            if running is None or qube.power is not PowerState.RUNNING:
                raise NotRunningError(qube.name)
            console = self._consoles.get(qube.uuid)
            if console is not None and console.machine is not running.machine:
                self._close(qube.uuid)
                console = None
            if console is None:
                console = await self._begin(qube.uuid, running)
            await self._begin_shell(running)
            return console.path

    def close(self) -> None:
        """Let go of all; the shells in the qubes wait on."""
        for uuid in tuple(self._consoles):
            self._close(uuid)

    async def _begin(self, uuid: UUID, running: RunningQube) -> _Console:
        near, far = socket.socketpair()
        terminal, other = os.openpty()
        console = _Console(running.machine, terminal, other, os.ttyname(other), near)
        try:
            tty.setraw(other)
            near.setblocking(False)
            os.set_blocking(terminal, False)
            await running.machine.console(far.fileno())
        except BaseException:
            console.close()
            raise
        finally:
            far.close()
        self._consoles[uuid] = console
        loop = asyncio.get_running_loop()
        loop.add_reader(near.fileno(), self._to_terminal, uuid, console)
        loop.add_reader(terminal, self._to_qube, console)
        return console

    async def _begin_shell(self, running: RunningQube) -> None:
        try:
            connection = await running.calls.open(MessageType.JUST_EXEC, _SHELL)
        except ReportableError as error:
            log.warning("no shell on a console", extra={"qube": running.name, "why": str(error)})
            return
        os.close(connection.end)
        running.calls.caller_over(connection)

    def _to_terminal(self, uuid: UUID, console: _Console) -> None:
        """What the qube writes; what nobody takes is lost, as on any serial line."""
        try:
            data = console.end.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            with suppress(OSError):
                os.write(console.terminal, data)
        elif self._consoles.get(uuid) is console:
            self._close(uuid)

    def _to_qube(self, console: _Console) -> None:
        with suppress(OSError):
            data = os.read(console.terminal, _CHUNK)
            console.end.send(data)

    def _close(self, uuid: UUID) -> None:
        self._consoles.pop(uuid).close()
