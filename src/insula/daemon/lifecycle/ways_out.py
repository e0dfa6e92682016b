"""The way out of each running net qube: opened when it starts, and again when it is lost."""

import asyncio
import logging
import os
from typing import Protocol
from uuid import UUID

from insula.daemon.engine.interface import FIRST_CARD, FIRST_MAC, CableKind, Card
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.world import World, uplink_uid
from insula.daemon.model.errors import QubeNotFoundError
from insula.daemon.model.properties.network import netvm
from insula.daemon.model.qube import Qube
from insula.daemon.network import uplink
from insula.daemon.network.uplink import Opened
from insula.protocol.admin import Event
from insula.protocol.errors import ReportableError
from insula.protocol.links import Link, LinkRole

FEATURE, PASST = "uplink", "passt"
LOOK_EVERY = 15.0  # seconds between two looks whether there is a way out, or another resolver
_LINK_TIMEOUT = 30.0

log = logging.getLogger(__name__)


class Opener(Protocol):
    """What opens ways out; see network.uplink."""

    async def open(self, uuid: UUID, uid: int) -> Opened: ...

    async def running(self, uuid: UUID) -> int | None: ...

    async def close(self, uuid: UUID) -> None: ...


class WaysOut:
    """Looks after them."""

    def __init__(self, world: World, opener: Opener) -> None:
        self._world, self._opener = world, opener
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Follow the ends of qubes."""
        self._world.events.add(self._happened)

    async def close(self) -> None:
        """Look after them no more; they stay."""
        self._world.events.remove(self._happened)
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def watch(self, qube: Qube, running: RunningQube) -> None:
        """Give a net qube that runs its way out."""
        if not qube.properties.get("provides_network") or netvm(self._world.system, qube):
            return
        if self._world.system.feature(qube, FEATURE, PASST) == PASST:
            self._replace(qube.uuid, asyncio.create_task(self._keep(qube, running)))

    def _happened(self, event: Event) -> None:
        if event.name != "domain-shutdown":
            return
        try:
            qube = self._world.system.named(event.subject)
        except QubeNotFoundError:
            return
        if qube.uuid in self._tasks:
            self._replace(qube.uuid, asyncio.create_task(self._opener.close(qube.uuid)))

    def _replace(self, uuid: UUID, task: asyncio.Task[None]) -> None:
        if (before := self._tasks.get(uuid)) is not None:
            before.cancel()
        self._tasks[uuid] = task

        def done(ended: asyncio.Task[None]) -> None:
            if self._tasks.get(uuid) is ended:
                del self._tasks[uuid]
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("a way out could not be looked after", exc_info=error)

        task.add_done_callback(done)

    async def _keep(self, qube: Qube, running: RunningQube) -> None:
        """Have a way out for as long as the qube runs."""
        gone = await self._opener.running(qube.uuid)
        if gone is not None and FIRST_CARD not in await running.machine.cards():
            os.close(gone)
            gone = None
        said = ""
        while self._world.running.get(qube.uuid) is running:
            known = uplink.resolvers()
            try:
                if gone is None:
                    gone = await self._open(qube, running)
            except ReportableError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("no way out", extra={"qube": qube.name, "why": said})
                await asyncio.sleep(LOOK_EVERY)
                continue
            said = ""
            try:
                await _until_gone(gone, known)
            finally:
                os.close(gone)
                gone = None

    async def _open(self, qube: Qube, running: RunningQube) -> int:
        """Open a way out and tell the qube of it; a pidfd of what serves it."""
        if FIRST_CARD in await running.machine.cards():
            await running.machine.unplug_card(FIRST_CARD)
        opened = await self._opener.open(qube.uuid, uplink_uid(qube.qid))
        try:
            with opened.end:
                await running.machine.plug_card(
                    Card(
                        number=FIRST_CARD,
                        mac=FIRST_MAC,
                        end=opened.end.fileno(),
                        kind=CableKind.STREAM,
                    )
                )
            link = Link(
                number=FIRST_CARD,
                role=LinkRole.OUTSIDE,
                mac=FIRST_MAC,
                name="eth0",
                ips=(uplink.ADDRESS,),
                gateways=(uplink.GATEWAY,),
                dns=(uplink.DNS,),
            )
            await running.link.link(link, _LINK_TIMEOUT)
        except BaseException:
            os.close(opened.gone)
            await self._opener.close(qube.uuid)
            raise
        log.info("way out opened", extra={"qube": qube.name})
        return opened.gone


async def _until_gone(pidfd: int, resolvers: str) -> None:
    """Until a process has ended, or the host has other name servers than when it began."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(pidfd, gone.set)
    try:
        while uplink.resolvers() == resolvers:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await gone.wait()
            except TimeoutError:
                continue
            return
    finally:
        loop.remove_reader(pidfd)
