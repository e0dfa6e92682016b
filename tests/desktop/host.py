"""What of an instance viewers need: a keeper, and an event loop that tests call into."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from insula.daemon.lifecycle.viewers import Viewers, viewer_name
from insula.desktop.xdisplay import parse
from insula.keeper.client import KeeperClient, start_keeper

UID = 700_000_001
BLUE = 0x3465A4
LABEL = (6, BLUE)
ROOT = os.geteuid() == 0
TIMEOUT = 20.0
Value = TypeVar("Value")


@dataclass(slots=True)
class JailedViewer:
    """A viewer in its jail."""

    host: "Host"
    uuid: UUID
    pid: int
    pidfd: int

    def kill(self) -> None:
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code; the keeper forgets it."""
        return self.host.ended(viewer_name(self.uuid))


class Host:
    """A keeper and viewers, for tests that wait in their own thread."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.keeper: KeeperClient = self.call(KeeperClient.connect(run / "keeper.sock"))
        self.viewers: Viewers = self.call(self._make_viewers())

    @classmethod
    @contextmanager
    def started(cls, run: Path) -> Iterator["Host"]:
        """A host whose keeper ends with the block, and with it all that it started."""
        start_keeper(run / "keeper.sock", run / "keeper.log")
        host = cls(run)
        try:
            yield host
        finally:
            host.call(host._end())
            host._loop.call_soon_threadsafe(host._loop.stop)
            host._thread.join(TIMEOUT)
            host._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Run it in the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT)

    async def _make_viewers(self) -> Viewers:
        return Viewers(self.keeper, self.run, root=ROOT)

    async def _end(self) -> None:
        for name, process in (await self.keeper.list()).items():
            if process.exit is None:
                await self.keeper.kill(name)
            while (await self.keeper.list())[name].exit is None:
                await asyncio.sleep(0.01)
        await self.keeper.stop()
        await self.keeper.close()

    def ended(self, process: str) -> int:
        """Wait for a process's end; its exit code."""

        async def wait() -> int:
            while (code := (await self.keeper.list())[process].exit) is None:
                await asyncio.sleep(0.02)
            await self.keeper.forget(process)
            return code

        return self.call(wait())

    def open(self, uuid: UUID, display: str, **options: object) -> JailedViewer:
        """Open the viewer of a qube named work with the blue label."""
        where = parse(display)
        allowed = where.authorization()
        with closing(where.connect()) as connection:
            connection.settimeout(None)
            spawned = self.call(
                self.viewers.open(
                    uuid=uuid,
                    name="work",
                    label=LABEL,
                    uid=UID,
                    options=options,
                    display=connection.fileno(),
                    authorization=(allowed.name, allowed.data),
                )
            )
        return JailedViewer(self, uuid, spawned.pid, spawned.pidfd)

    def listening(self, uuid: UUID) -> socket.socket:
        """A qube's window port in the hands of a test."""
        folder = self.run / "qubes" / str(uuid)
        folder.mkdir(parents=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "gui.sock"))
        listener.listen(2)
        return listener

    def forget_pixels(self, uuid: UUID) -> None:
        """Have the keeper let go of a qube's pixel region."""
        with suppress(KeyError):
            self.call(self.keeper.drop(f"pixels/qube-{uuid}"))
