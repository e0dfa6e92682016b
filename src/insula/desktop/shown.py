"""The viewer of one qube, kept open for as long as the qube runs."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import NamedTuple

from insula.client.errors import (
    DaemonNotRunningError,
    QubesVMNotFoundError,
    QubesVMNotStartedError,
)
from insula.client.local_socket import LocalRequest
from insula.desktop.xdisplay import Display
from insula.protocol.errors import ProtocolError, ReportableError

ASK_TIMEOUT = 60.0  # seconds a viewer may take to open, on a busy host
FIRST_PAUSE = 0.25  # seconds before a viewer that ended is opened again; doubled each time
LONGEST_PAUSE = 15.0
_LAST_WORDS = 2.0  # seconds to hear what a viewer said before its end
STEADY = 60.0  # seconds a viewer has to live for its earlier ends to be forgotten
Hear = Callable[[str, socket.socket], Awaitable[None]]
MOST_ENDS = 8  # in a row; then the qube's windows stay away until it is started again

log = logging.getLogger(__name__)


class Viewer(NamedTuple):
    """A viewer's process, by a descriptor that becomes readable when it ends."""

    pid: int
    pidfd: int
    session: socket.socket  # our end of the socket by which it tells things

    def end(self) -> None:
        """End it and let go; nothing else would end what is process 1 of its jail."""
        self.session.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)

    async def ended(self, hearing: Awaitable[None]) -> None:
        """Wait for its end, and hear what it tells until then."""
        heard = asyncio.ensure_future(hearing)
        try:
            await self._ended()
            await asyncio.wait((heard,), timeout=_LAST_WORDS)
        finally:
            heard.cancel()
            await asyncio.gather(heard, return_exceptions=True)

    async def _ended(self) -> None:
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self.pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(self.pidfd)


class Asking:
    """Asks the daemon for viewers, in threads; none that came too late is left behind."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._under_way: set[asyncio.Task[Viewer]] = set()

    async def viewer(self, qube: str) -> Viewer:
        """Have a viewer opened.

        Raises:
            DaemonNotRunningError: there is none. QubesException: the daemon refused.
            DisplayError: the X server does not answer.
        """
        task = asyncio.create_task(asyncio.to_thread(_ask, self._display, qube))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_drop)
            raise

    async def settle(self) -> None:
        """Wait until nothing is under way; every answer was taken or dropped then."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


async def keep_shown(
    qube: str, asking: Asking, hear: Hear, daemon_back: Callable[[], asyncio.Event]
) -> None:
    """Show a qube's windows until it does not run any more, or its viewers end too often.

    A viewer that ends is opened again, after a pause that grows. hear: serves what a viewer of a
    qube tells. daemon_back: gives what is set
    once a daemon that was gone is there again. Cancelling ends the viewer.
    """
    loop = asyncio.get_running_loop()
    ends, pause = 0, FIRST_PAUSE
    while ends < MOST_ENDS:
        started = loop.time()
        try:
            viewer = await asking.viewer(qube)
        except DaemonNotRunningError:
            await daemon_back().wait()
            continue
        except (QubesVMNotStartedError, QubesVMNotFoundError):
            return
        except (ReportableError, ProtocolError) as error:
            log.warning("%s: not shown: %s", qube, error)
        else:
            try:
                await viewer.ended(hear(qube, viewer.session))
            finally:
                viewer.end()
        if loop.time() - started > STEADY:
            ends, pause = 0, FIRST_PAUSE
        ends += 1
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)
    log.error("%s: its viewer ended %d times in a row; no more is opened", qube, ends)


def _ask(display: Display, qube: str) -> Viewer:
    allowed = display.authorization()
    fields = {"qube": qube, "authorization": [allowed.name.hex(), allowed.data.hex()]}
    ours, theirs = socket.socketpair()
    with (
        ExitStack() as unless_shown,
        theirs,
        display.connect() as connection,
        LocalRequest() as asked,
    ):
        unless_shown.enter_context(ours)
        connection.settimeout(None)  # the viewer shares the flag that a timeout sets
        given = [connection.fileno(), theirs.fileno()]
        asked.ask("window", fields, given, timeout=ASK_TIMEOUT)
        if len(asked.descriptors) != 1:
            for descriptor in asked.descriptors:
                os.close(descriptor)
            raise ProtocolError("a viewer comes with one descriptor")
        viewer = Viewer(int(asked.fields["pid"]), asked.descriptors[0], ours)
        unless_shown.pop_all()
        return viewer


def _drop(task: asyncio.Task[Viewer]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().end()
