"""Devices that appear and go: told of, and given to the qubes they are assigned to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from insula.daemon.lifecycle.assigning import by_weight, name_of
from insula.daemon.lifecycle.devices import Devices
from insula.daemon.lifecycle.world import World
from insula.daemon.model.assignments import CLASSES, Assignment
from insula.daemon.model.errors import QubeNotFoundError
from insula.daemon.model.qube import PowerState, Qube
from insula.protocol.admin import Event
from insula.protocol.devices import DeviceInfo
from insula.protocol.errors import ReportableError

_WITH_THE_MACHINE = "pci"  # never given to one that runs
_ASKS = "ask-to-attach"

log = logging.getLogger(__name__)


# Asks somebody which qube is to get a device; the answer is one's name, or None: no.
Asker = Callable[[DeviceInfo, list[Qube]], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class _Wish:
    """A device that an assignment is for, and the running qube that it is of."""

    frontend: Qube
    assignment: Assignment


class Appearing:
    """Watches what backends show."""

    def __init__(self, world: World, devices: Devices, ask: Asker) -> None:
        self._world, self._devices, self._ask = world, devices, ask
        self._shown: dict[tuple[UUID, str], dict[str, DeviceInfo]] = {}
        self._looking: dict[UUID, asyncio.Lock] = {}
        self._due: set[UUID] = set()  # those at whom a look is due
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = False

    def start(self) -> None:
        """Watch from now on; what is there already appears to nobody."""
        for qube in self._world.system.in_order():
            self._compare(qube)
        self._world.events.add(self._happened)
        self._watching = True

    async def close(self) -> None:
        """Watch no more."""
        if self._watching:
            self._world.events.remove(self._happened)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def changed(self, backend: Qube) -> None:
        """Have a look at what a qube shows: it may be something else than before."""
        if backend.uuid not in self._due:
            self._due.add(backend.uuid)
            self._spawn(self._look(backend))

    def _happened(self, event: Event) -> None:
        if event.name not in ("domain-start", "domain-shutdown"):
            return
        try:
            qube = self._world.system.named(event.subject)
        except QubeNotFoundError:
            return
        if event.name == "domain-start":
            self._spawn(self._started(qube))
        else:
            self._devices.forget(qube)
            self.changed(qube)

    async def _started(self, qube: Qube) -> None:
        system = self._world.system
        await self._look(qube)
        for devclass in CLASSES:
            assignments = [one for one in qube.assignments if one.devclass == devclass]
            for assignment in by_weight(assignments):
                for device in self._devices.present(devclass, name_of(system, assignment)):
                    await self._offer(device, [_Wish(qube, assignment)])

    async def _look(self, backend: Qube) -> None:
        """Tell of what is other than before, and give what is new to whom it is assigned."""
        async with self._looking.setdefault(backend.uuid, asyncio.Lock()):
            self._due.discard(backend.uuid)
            for devclass, gone, new in self._compare(backend):
                tell = self._world.events.tell
                tell(backend, f"device-list-change:{devclass}")
                for device in gone:
                    await self._devices.lose(device)
                    tell(
                        backend, f"device-removed:{devclass}", port=f"{backend.name}:{device.port}"
                    )
                for device in new:
                    tell(backend, f"device-added:{devclass}", device=device.name)
                for device in new:
                    await self._offer(device, self._wishes(backend, device))
        if backend.uuid not in self._world.system.qubes:
            self._looking.pop(backend.uuid, None)

    def _compare(self, backend: Qube) -> list[tuple[str, list[DeviceInfo], list[DeviceInfo]]]:
        """Classes of which a qube shows others than when last looked: what went, what came."""
        found = []
        for devclass in CLASSES:
            now = {one.port: one for one in self._devices.available(devclass, backend)}
            before = self._shown.pop((backend.uuid, devclass), {})
            if now:
                self._shown[backend.uuid, devclass] = now
            gone = [one for port, one in before.items() if _other(one, now.get(port))]
            new = [one for port, one in now.items() if _other(one, before.get(port))]
            if gone or new:
                found.append((devclass, gone, new))
        return found

    def _wishes(self, backend: Qube, device: DeviceInfo) -> list[_Wish]:
        """Running qubes that a device is assigned to, each by what says most of it."""
        found = []
        for qube in self._world.system.in_order():
            if qube.power is not PowerState.RUNNING or qube is backend:
                continue
            fitting = [
                one
                for one in qube.assignments
                if one.fits(device.devclass, backend.uuid, device.port, device.device_id)
            ]
            if fitting:
                found.append(_Wish(qube, by_weight(fitting)[0]))
        return found

    async def _offer(self, device: DeviceInfo, wishes: list[_Wish]) -> None:
        """Give a device that nobody has to whom it is assigned, if need be by asking."""
        wishes = [one for one in wishes if self._devices.keeper(one.frontend, device) is None]
        if not wishes or device.devclass == _WITH_THE_MACHINE:
            return
        if len(wishes) > 1 or wishes[0].assignment.mode == _ASKS:
            self._spawn(self._question(device, wishes))
            return
        await self._give(device, wishes[0])

    async def _question(self, device: DeviceInfo, wishes: list[_Wish]) -> None:
        answer = await self._ask(device, [one.frontend for one in wishes])
        for wish in wishes:
            if answer == wish.frontend.name:
                await self._give(device, wish)

    async def _give(self, device: DeviceInfo, wish: _Wish) -> None:
        qube = wish.frontend
        try:
            backend = self._world.system.named(device.backend)
            async with self._world.lock(qube.uuid):
                still = wish.assignment in qube.assignments and device in (
                    self._devices.available(device.devclass, backend)
                )
                if still and qube.power is PowerState.RUNNING:
                    await self._devices.give(qube, device, wish.assignment.options)
        except ReportableError as error:
            log.warning(
                "a device is not given",
                extra={"qube": qube.name, "device": str(device.name), "why": str(error)},
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("looking after devices failed", exc_info=error)


def _other(device: DeviceInfo, found: DeviceInfo | None) -> bool:
    return found is None or found.device_id != device.device_id
