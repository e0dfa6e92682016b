"""Devices of qubes: which there are, and whose they are now.

What a class of devices can do is its driver's; a class without one has no devices.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from insula.daemon.devices.driver import Driver, OptionError, checked, settled
from insula.daemon.lifecycle.assigning import check_class, name_of, pvh, required
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import (
    DeviceAlreadyAttachedError,
    DeviceNotAttachedError,
    NotHaltedError,
    NotRunningError,
    RefusedError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.properties.qubes import BY_CLASS, value_of
from insula.daemon.model.qube import PowerState, Qube, QubeClass
from insula.protocol.devices import ANY, DeviceInfo, DeviceName, interfaces_of, matches
from insula.protocol.errors import ReportableError

_OF_SEVERAL = ("mic",)  # classes whose devices several qubes may have at once
_DENIED = "devices_denied"
# A qube that stands still shows what it had.
_SHOWING = (PowerState.RUNNING, PowerState.PAUSED, PowerState.SUSPENDED, PowerState.HALTING)
_SYSTEM_NODES = ("xvda", "xvdb", "xvdc")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attached:
    """A device that a qube has now."""

    device: DeviceInfo
    options: Mapping[str, str]


class Devices:
    """The devices of all qubes, by their classes."""

    def __init__(self, world: World, drivers: Sequence[Driver]) -> None:
        self._world = world
        self._drivers = {driver.devclass: driver for driver in drivers}
        self._attached: dict[UUID, list[Attached]] = {}
        self._in_hand: set[tuple[str, DeviceName, UUID | None]] = set()

    def available(self, devclass: str, backend: Qube) -> list[DeviceInfo]:
        """What a qube shows."""
        driver = self._drivers.get(devclass)
        if driver is None or backend.klass is QubeClass.REMOTE:
            return []
        if backend.klass is not QubeClass.ADMIN and backend.power not in _SHOWING:
            return []
        return driver.available(backend.name)

    def attached(self, devclass: str, frontend: Qube) -> list[Attached]:
        """What a qube has now."""
        if not _is_up(frontend):
            return []  # They went with its machine.
        held = self._attached.get(frontend.uuid, [])
        return [one for one in held if one.device.devclass == devclass]

    def holder(self, device: DeviceInfo) -> Qube | None:
        """The qube that has a device."""
        for uuid in tuple(self._attached):
            qube = self._world.system.find(uuid)
            if qube is None:
                continue
            if self._held(qube, device):
                return qube
        return None

    def present(self, devclass: str, name: DeviceName) -> list[DeviceInfo]:
        """Devices that are there and meant by a name."""
        system = self._world.system
        if name.backend != ANY and not system.has_name(name.backend):
            return []
        backends = system.in_order() if name.backend == ANY else [system.named(name.backend)]
        return [
            device
            for backend in backends
            for device in self.available(devclass, backend)
            if name.port in (ANY, device.port) and name.device_id in (None, ANY, device.device_id)
        ]

    async def attach(
        self, frontend: Qube, devclass: str, name: DeviceName, options: Mapping[str, str]
    ) -> None:
        """Give a device to a running qube, as somebody asked for by hand.

        Raises:
            ReportableError: it cannot have it.
            RefusedSilentlyError: no device is meant, or one that it is never to have.
        """
        async with self._world.lock(frontend.uuid):
            await self.give(frontend, self._meant(frontend, devclass, name), options)

    async def give(self, frontend: Qube, device: DeviceInfo, options: Mapping[str, str]) -> None:
        """Give a device to a running qube, whose lock the caller holds.

        Raises:
            ReportableError: it cannot have it.
        """
        several = device.devclass in _OF_SEVERAL
        reserved = device.devclass, device.name, frontend.uuid if several else None
        if (holder := self.keeper(frontend, device)) is not None or reserved in self._in_hand:
            raise DeviceAlreadyAttachedError(
                str(device.name), "another qube" if holder is None else holder.name
            )
        found = self._settled(frontend, device, options)
        told = {"device": str(device.name), "options": found}
        self._in_hand.add(reserved)
        try:
            self._world.events.tell(frontend, f"device-pre-attach:{device.devclass}", **told)
            await self._drivers[device.devclass].attach(frontend.name, device, found)
        finally:
            self._in_hand.discard(reserved)
        self._attached.setdefault(frontend.uuid, []).append(Attached(device, found))
        self._world.events.tell(frontend, f"device-attach:{device.devclass}", **told)

    async def detach(self, frontend: Qube, devclass: str, backend: str, port: str) -> None:
        """Take a device away from a qube, as somebody asked for by hand.

        Raises:
            DeviceNotAttachedError: it does not have it.
            NotHaltedError: it requires it.
        """
        async with self._world.lock(frontend.uuid):
            for one in self.attached(devclass, frontend):
                if one.device.port == port and backend in (ANY, one.device.backend):
                    break
            else:
                raise DeviceNotAttachedError(f"{backend}:{port}", frontend.name)
            device = one.device
            owner = self._world.system.named(device.backend)
            for assignment in frontend.assignments:
                fits = assignment.fits(devclass, owner.uuid, device.port, device.device_id)
                if assignment.mode == "required" and fits:
                    raise NotHaltedError(frontend.name, f"runs and requires {device.name}")
            where = f"{device.backend}:{device.port}"
            self._world.events.tell(frontend, f"device-pre-detach:{devclass}", port=where)
            await self._drivers[devclass].detach(frontend.name, device)
            self._attached[frontend.uuid].remove(one)
            self._world.events.tell(frontend, f"device-detach:{devclass}", port=where)

    async def lose(self, device: DeviceInfo) -> None:
        """Take a device that is not there any more away from whoever had it."""
        for qube in self._world.system.in_order():
            if not self._held(qube, device):
                continue
            async with self._world.lock(qube.uuid):
                for one in self._held(qube, device):
                    await self._lose(qube, one)

    def _held(self, frontend: Qube, device: DeviceInfo) -> list[Attached]:
        held = self.attached(device.devclass, frontend)
        return [one for one in held if one.device.name == device.name]

    async def _lose(self, frontend: Qube, one: Attached) -> None:
        where = f"{one.device.backend}:{one.device.port}"
        devclass = one.device.devclass
        self._world.events.tell(frontend, f"device-pre-detach:{devclass}", port=where)
        try:
            await self._drivers[devclass].detach(frontend.name, one.device)
        except ReportableError as error:
            log.warning("a device is gone", extra={"qube": frontend.name, "why": str(error)})
        self._attached[frontend.uuid].remove(one)
        self._world.events.tell(frontend, f"device-detach:{devclass}", port=where)

    def forget(self, frontend: Qube) -> None:
        """A qube's machine is gone, and what it had with it."""
        for one in self._attached.pop(frontend.uuid, []):
            where = f"{one.device.backend}:{one.device.port}"
            self._world.events.tell(frontend, f"device-detach:{one.device.devclass}", port=where)

    def check_start(self, qube: Qube) -> None:
        """Refuse to start a qube without what it requires.

        Raises:
            RefusedError: something is missing, or cannot be given to it.
        """
        for assignment in required(qube):
            devclass, name = assignment.devclass, name_of(self._world.system, assignment)
            found = self.present(devclass, name)
            if not found:
                why, hint = "which is not there", "Plug it in, or: "
            elif not self._drivers[devclass].gives:
                why, hint = "which cannot be given to qubes yet", "Start it without: "
            elif all(self.keeper(qube, device) is not None for device in found):
                why, hint = "which another qube has", "Detach it there, or: "
            else:
                continue
            raise RefusedError(
                f"Qube {qube.name} requires {devclass} device {name}, {why}",
                f"{hint}qvm-device {devclass} unassign {qube.name} {name}",
            )

    async def give_required(self, qube: Qube) -> None:
        """Give a qube that is about to be started what it requires; the caller holds its lock.

        Raises:
            ReportableError: something cannot be given to it.
        """
        for assignment in required(qube):
            found = self.present(assignment.devclass, name_of(self._world.system, assignment))
            mine = [one.device.name for one in self.attached(assignment.devclass, qube)]
            if any(device.name in mine for device in found):
                continue  # By an assignment that says more of it.
            free = [device for device in found if self.keeper(qube, device) is None]
            if not free:
                raise RefusedError(
                    f"Qube {qube.name} requires {assignment.devclass} device "
                    f"{name_of(self._world.system, assignment)}, which is gone"
                )
            await self.give(qube, free[0], assignment.options)

    def keeper(self, frontend: Qube, device: DeviceInfo) -> Qube | None:
        """The qube that keeps another from having a device."""
        if device.devclass not in _OF_SEVERAL:
            return self.holder(device)
        return frontend if self._held(frontend, device) else None

    def _settled(
        self, frontend: Qube, device: DeviceInfo, options: Mapping[str, str]
    ) -> dict[str, str]:
        """Options that a device is given to a qube with; refuses what may not be given to it."""
        devclass, system = device.devclass, self._world.system
        check_class(frontend, devclass, device.backend)
        if device.backend == frontend.name:
            raise RefusedError(f"{device.name} is {frontend.name}'s own already")
        if devclass == "usb" and frontend.klass is QubeClass.ADMIN:
            raise RefusedError("dom0 gets no USB devices of qubes")
        if devclass == "pci" and value_of(system, frontend, "virt_mode") == "pvh":
            raise pvh(frontend)
        taken = [one.options.get("frontend-dev", "") for one in self.attached("block", frontend)]
        if frontend.klass.is_machine:
            kernel = value_of(system, frontend, "kernel")
            taken += [*_SYSTEM_NODES, *(["xvdd"] if kernel else [])]
        try:
            return settled(device, checked(devclass, options), taken)
        except OptionError as error:
            raise ValueRefusedError(str(error)) from None

    def _meant(self, frontend: Qube, devclass: str, name: DeviceName) -> DeviceInfo:
        """The one device that a name stands for, if the qube may be given it by hand."""
        found = self.present(devclass, name)
        self._check_denied(frontend, found)
        if not _is_up(frontend):
            raise NotRunningError(frontend.name)
        if devclass == "block" and name.backend != ANY:
            backend = self._world.system.named(name.backend)
            if not _is_up(backend):
                raise NotRunningError(backend.name)
        if len(found) != 1:
            raise RefusedSilentlyError(f"{len(found)} devices are meant by {name}")
        return found[0]

    def _check_denied(self, frontend: Qube, devices: Sequence[DeviceInfo]) -> None:
        if _DENIED not in BY_CLASS[frontend.klass]:
            return
        denied = interfaces_of(str(value_of(self._world.system, frontend, _DENIED) or ""))
        if denied and not devices:
            raise RefusedSilentlyError("nothing is known of a device that may be a denied one")
        for device in devices:
            for code in interfaces_of(device.interfaces):
                if denied and (code.startswith("?") or any(matches(one, code) for one in denied)):
                    raise RefusedSilentlyError(f"{frontend.name} is denied devices such as {code}")


def _is_up(qube: Qube) -> bool:
    return not (qube.klass.is_machine and qube.halted)
