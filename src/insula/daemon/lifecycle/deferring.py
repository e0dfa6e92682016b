"""Networks of qubes that stand still: a change of one takes effect once its qube goes on (8.3)."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import QubeNotFoundError
from insula.daemon.model.features import DEFERRED_NETVM, drop_feature
from insula.daemon.model.properties.network import clients, netvm
from insula.daemon.model.qube import Qube
from insula.daemon.rpc.services import call_service
from insula.protocol.admin import Event
from insula.protocol.errors import ReportableError

SERVICE = "qubes.WaitForNetworkUplink"
TIMEOUT = 10.0  # seconds that a qube has to see its new network

log = logging.getLogger(__name__)


class Deferring:
    """Lets qubes have the network that they were given while they stood still."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = False

    def start(self) -> None:
        """Watch for providers that start, and for qubes that end without having gone on."""
        self._world.events.add(self._happened)
        self._watching = True

    async def close(self) -> None:
        """Watch no more."""
        if self._watching:
            self._world.events.remove(self._happened)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def gone_on(self, qube: Qube) -> None:
        """Let a qube that goes on have its network, and wait until it sees it."""
        if DEFERRED_NETVM not in qube.features or not await self._settle(qube):
            return
        running = self._world.running.get(qube.uuid)
        provider = netvm(self._world.system, qube)
        if running is None or provider is None or not self._world.system.feature(qube, "qrexec"):
            return
        try:
            done = await call_service(running.calls, SERVICE, timeout=TIMEOUT)
        except ReportableError as error:
            log.warning("service failed", extra={"qube": qube.name, "why": str(error)})
            return
        if done.code:
            failed = {"qube": qube.name, "service": SERVICE, "code": done.code}
            log.warning("service failed", extra=failed)

    def _happened(self, event: Event) -> None:
        if event.name not in ("domain-start", "domain-shutdown"):
            return
        try:
            qube = self._world.system.named(event.subject)
        except QubeNotFoundError:
            return
        settled = clients(self._world.system, qube) if event.name == "domain-start" else [qube]
        for one in settled:
            if DEFERRED_NETVM in one.features:
                self._spawn(self._settle_quietly(one))

    async def _settle(self, qube: Qube) -> bool:
        """Note that a qube's network is the one it was given; whether it was another."""
        async with self._world.editing() as edit:
            if qube.uuid not in edit.system.qubes or DEFERRED_NETVM not in qube.features:
                return False
            drop_feature(edit, qube, DEFERRED_NETVM)
        return True

    async def _settle_quietly(self, qube: Qube) -> None:
        try:
            await self._settle(qube)
        except ReportableError as error:
            log.warning("a network stays deferred", extra={"qube": qube.name, "why": str(error)})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
