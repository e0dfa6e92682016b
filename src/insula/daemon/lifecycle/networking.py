"""Networks of running qubes: a cable from each client to its provider, and cards at both ends.

A provider is told of a client, and has its rules in force, before the client's card has a cable.
When a provider ends its clients keep their cables, and its next machine is joined to them.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from insula.daemon.engine.interface import FIRST_CARD, FIRST_MAC, Card
from insula.daemon.lifecycle.firewall import CHANGED
from insula.daemon.lifecycle.live_keys import LiveKeys
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import QubeNotFoundError
from insula.daemon.model.properties.network import clients, netvm, own_ip
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System
from insula.daemon.network.cables import Cable, Cables
from insula.protocol.admin import Event
from insula.protocol.control import Key
from insula.protocol.errors import ReportableError
from insula.protocol.firewall import DEFAULT, parse_rule, published
from insula.protocol.links import Link, LinkRole

LINK_TIMEOUT = 30.0  # seconds that an agent has to set a card up
UNLINK_TIMEOUT = 5.0
_PAUSES = (2.0, 5.0, 15.0, 60.0)  # seconds before it is tried again
PROVIDERS_MAC = "fe:ff:ff:ff:ff:ff"
_UPLINK = "eth0"
_FOLLOWED = (
    *("domain-shutdown", "domain-unpaused", "property-set:netvm", "property-reset:netvm"),
    *("property-del:netvm", "property-set:provides_network"),
)
_LISTED = ("domain-add", "domain-pre-delete", "property-set:ip", "property-reset:ip")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Laid:
    """A client's cable. number: of its card in its provider. joined: the provider's xid, or -1.

    addresses: under which the provider was told the client's rules.
    """

    cable: Cable
    number: int
    joined: int
    addresses: tuple[str, ...] = ()


class Networking:
    """Keeps cables as the qubes' netvms say."""

    def __init__(self, world: World, keys: LiveKeys, cables: Cables) -> None:
        self._world, self._keys, self._cables = world, keys, cables
        self._laid: dict[UUID, _Laid] = {}
        self._locks: defaultdict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: dict[UUID, int] = {}
        self._begun = False
        self._closed = False

    def start(self) -> None:
        """Follow what happens; nothing is done about it yet."""
        self._world.events.add(self._happened)

    async def begin(self) -> None:
        """Connect qubes from now on, once those that run since an earlier daemon are known."""
        await self._find_earlier()
        self._begun = True
        for uuid in self._world.running:
            if (qube := self._world.system.find(uuid)) is not None:
                self._settle_soon(qube)

    async def close(self) -> None:
        """Follow no more; cables stay."""
        self._world.events.remove(self._happened)
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def watch(self, qube: Qube, _running: RunningQube) -> None:
        """Connect a qube that runs now, and those that get their network from it."""
        self._settle_soon(qube)
        if qube.properties.get("provides_network"):
            for client in clients(self._world.system, qube):
                self._settle_soon(client)

    async def settle(self, qube: Qube) -> None:
        """Bring a qube's network about as its netvm says; returns when that was done or tried."""
        if not self._begun:
            return  # It is done then.
        async with self._locks[qube.uuid]:
            try:
                await self._bring_about(qube)
            except ReportableError as error:
                log.warning("no network", extra={"qube": qube.name, "why": str(error)})
                self._try_again(qube)
            else:
                self._failures.pop(qube.uuid, None)

    def _try_again(self, qube: Qube) -> None:
        """A busy host may have made an agent late; what fails for good is given up."""
        failures = self._failures.get(qube.uuid, 0)
        if failures < len(_PAUSES) and qube.uuid in self._world.running:
            self._failures[qube.uuid] = failures + 1
            loop = asyncio.get_running_loop()
            loop.call_later(_PAUSES[failures], self._settle_soon, qube)
        else:
            self._failures.pop(qube.uuid, None)

    def _happened(self, event: Event) -> None:
        system = self._world.system
        name = event.fields.get("vm", "") if event.name in _LISTED and not event.subject else ""
        with suppress(QubeNotFoundError):
            qube = system.named(str(name) or event.subject)
            if event.name in _FOLLOWED:
                self._settle_soon(qube)
            if event.name in _LISTED or event.name in _FOLLOWED:
                self._tell_providers()
            if event.name == CHANGED:
                self._publish(qube)

    def _tell_providers(self) -> None:
        """Who their clients are may have changed."""
        for uuid in self._world.running:
            qube = self._world.system.find(uuid)
            if qube is not None and qube.properties.get("provides_network"):
                self._keys.refresh(qube)

    def _settle_soon(self, qube: Qube) -> None:
        self._spawn(self.settle(qube))

    async def _bring_about(self, qube: Qube) -> None:
        """Let the cable of a qube be as its netvm says; its lock is held."""
        laid, running = self._laid.get(qube.uuid), self._world.running.get(qube.uuid)
        if running is None:
            if laid is not None:
                await self._take_up(qube, laid, None)
            return
        if running.paused:
            return
        provider = netvm(self._world.system, qube)
        if laid is not None and (provider is None or provider.uuid != laid.cable.provider):
            await self._take_up(qube, laid, running)
            laid = None
        above = self._world.running.get(provider.uuid) if provider is not None else None
        if provider is None or above is None or above.paused:
            return
        if laid is None:
            await self._lay(qube, running, provider, above)
        elif laid.joined != above.xid:
            await self._join_provider(qube, laid, provider, above)

    async def _lay(
        self, qube: Qube, running: RunningQube, provider: Qube, above: RunningQube
    ) -> None:
        begun = time.monotonic()
        cable = Cable(qube.uuid, provider.uuid)
        await self._cables.make(cable)
        laid = _Laid(cable, running.xid, -1)
        self._laid[qube.uuid] = laid
        try:
            await self._join_provider(qube, laid, provider, above)
            await self._join_client(qube, running, cable)
        except BaseException:
            await self._take_up(qube, laid, running)
            raise
        milliseconds = round((time.monotonic() - begun) * 1000)
        told = {"qube": qube.name, "netvm": provider.name, "link_ms": milliseconds}
        log.info("network connected", extra=told)

    async def _join_provider(
        self, qube: Qube, laid: _Laid, provider: Qube, above: RunningQube
    ) -> None:
        """Join a cable to the provider's machine; packets pass it when this returns."""
        system = self._world.system
        self._keys.refresh(provider)
        self._publish(qube)
        real, visible = own_ip(system, qube), value_of(system, qube, "visible_ip")
        hidden = bool(real) and visible != real
        addresses = (real, None if hidden else own_ip(system, qube, 6))
        link = Link(
            number=laid.number,
            role=LinkRole.DOWNLINK,
            mac=_card_mac(laid.number),
            name=f"vif{laid.number}.0",
            own_mac=PROVIDERS_MAC,
            client_mac=str(value_of(system, qube, "mac")),
            ips=tuple(str(address) for address in addresses if address),
            visible_ip=str(visible) if hidden else None,
            visible_gateway=str(value_of(system, qube, "visible_gateway")) if hidden else None,
        )
        with await self._cables.provider_end(laid.cable) as end:
            card = Card(number=laid.number, mac=link.mac, end=end.fileno())
            await above.machine.plug_card(card)
        laid.joined = above.xid
        laid.addresses = _addresses(system, qube)
        try:
            await above.link.link(link, LINK_TIMEOUT)
        except ReportableError:
            await self._leave_provider(laid)
            raise

    async def _join_client(self, qube: Qube, running: RunningQube, cable: Cable) -> None:
        mac = str(value_of(self._world.system, qube, "mac"))
        with await self._cables.client_end(cable) as end:
            await running.machine.plug_card(
                Card(number=FIRST_CARD, mac=FIRST_MAC, end=end.fileno())
            )
        link = Link(
            number=FIRST_CARD,
            role=LinkRole.UPLINK,
            mac=FIRST_MAC,
            name=_UPLINK,
            own_mac=mac if mac != FIRST_MAC else None,
        )
        await running.link.link(link, LINK_TIMEOUT)

    async def _take_up(self, qube: Qube, laid: _Laid, running: RunningQube | None) -> None:
        """Remove a cable, at the client's side first; what fails on the way keeps nothing else."""
        if running is not None and FIRST_CARD in await _cards(running):
            await _try(qube, running.link.unlink(FIRST_CARD, UNLINK_TIMEOUT))
            await _try(qube, running.machine.unplug_card(FIRST_CARD))
        await self._leave_provider(laid)
        await self._cables.drop(laid.cable)
        self._laid.pop(qube.uuid, None)

    async def _leave_provider(self, laid: _Laid) -> None:
        above = self._world.running.get(laid.cable.provider)
        provider = self._world.system.find(laid.cable.provider)
        joined, laid.joined = laid.joined, -1
        if above is None or provider is None or above.xid != joined:
            return
        if not above.paused:
            await _try(provider, above.link.unlink(laid.number, UNLINK_TIMEOUT))
        await _try(provider, above.machine.unplug_card(laid.number))
        for address in laid.addresses:
            path = f"/qubes-firewall/{address}"
            gone = (Key(f"{path}/".encode()), Key(path.encode()))
            with suppress(ReportableError):
                above.link.send(b"".join(key.encode() for key in gone))

    def _publish(self, qube: Qube) -> None:
        """Tell a qube's provider its rules; the last key says that all are there."""
        system = self._world.system
        provider = netvm(system, qube)
        above = self._world.running.get(provider.uuid) if provider is not None else None
        if above is None:
            return
        kept = (DEFAULT,) if qube.firewall is None else qube.firewall
        rules = [parse_rule(rule) for rule in kept]
        now = time.time()
        for address in _addresses(system, qube):
            keys = [
                Key(f"/qubes-firewall/{address}/".encode()),
                *(
                    Key(path.encode(), value.encode())
                    for path, value in published(address, rules, now)
                ),
            ]
            try:
                above.link.send(b"".join(key.encode() for key in keys))
            except ReportableError as error:
                log.warning("rules not told", extra={"qube": qube.name, "why": str(error)})

    async def _find_earlier(self) -> None:
        """Know the cables that an earlier daemon laid, and remove those that lead nowhere."""
        for cable in await self._cables.all():
            running = self._world.running.get(cable.client)
            above = self._world.running.get(cable.provider)
            if running is None or FIRST_CARD not in await _cards(running):
                await self._cables.drop(cable)
                continue
            joined = above is not None and running.xid in await _cards(above)
            laid = _Laid(cable, running.xid, above.xid if above is not None and joined else -1)
            self._laid[cable.client] = laid

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a network could not be looked after", exc_info=error)


def _addresses(system: System, qube: Qube) -> tuple[str, ...]:
    """Those by which a provider knows a client, of either family."""
    return tuple(str(one) for one in (own_ip(system, qube), own_ip(system, qube, 6)) if one)


def _card_mac(number: int) -> str:
    """By which a provider's agent finds a card before it gives it the usual address."""
    return "02:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(4, "big"))


async def _cards(running: RunningQube) -> frozenset[int]:
    try:
        return await running.machine.cards()
    except ReportableError:
        return frozenset()  # Its machine has ended.


async def _try(qube: Qube, step: Coroutine[Any, Any, None]) -> None:
    try:
        await step
    except ReportableError as error:
        log.info("a network's end", extra={"qube": qube.name, "why": str(error)})
