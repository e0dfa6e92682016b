"""Devices of qubes: which there are, whose they are to be, and whose they are now.

What a class of devices can do is its driver's; a class without one has no devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from insula.daemon.devices.driver import Driver, OptionError, checked
from insula.daemon.lifecycle.world import World
from insula.daemon.model.assignments import Assignment
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import (
    DeviceAlreadyAssignedError,
    DeviceAlreadyAttachedError,
    DeviceNotAssignedError,
    DeviceNotAttachedError,
    NotHaltedError,
    NotRunningError,
    QubeNotFoundError,
    RefusedError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import PowerState, Qube, QubeClass
from insula.protocol.devices import ANY, DeviceInfo, DeviceName, interfaces_of, matches


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

    def available(self, devclass: str, backend: Qube) -> list[DeviceInfo]:
        """What a qube shows."""
        driver = self._drivers.get(devclass)
        if driver is None or backend.klass is QubeClass.REMOTE:
            return []
        if backend.klass is not QubeClass.ADMIN and backend.power is not PowerState.RUNNING:
            return []
        return driver.available(backend.name)

    def attached(self, devclass: str, frontend: Qube) -> list[Attached]:
        """What a qube has now."""
        if frontend.uuid not in self._world.running:
            self._attached.pop(frontend.uuid, None)  # It went with its machine.
        held = self._attached.get(frontend.uuid, [])
        return [one for one in held if one.device.devclass == devclass]

    def holder(self, device: DeviceInfo) -> Qube | None:
        """The qube that has a device."""
        for uuid in tuple(self._attached):
            qube = self._world.system.find(uuid)
            if qube is None:
                continue
            for one in self.attached(device.devclass, qube):
                if one.device.name == device.name:
                    return qube
        return None

    def present(self, devclass: str, name: DeviceName) -> list[DeviceInfo]:
        """Devices that are there and meant by a name."""
        system = self._world.system
        backends = system.in_order() if name.backend == ANY else [system.named(name.backend)]
        return [
            device
            for backend in backends
            for device in self.available(devclass, backend)
            if name.port in (ANY, device.port) and name.device_id in (None, ANY, device.device_id)
        ]

    async def assign(self, frontend: Qube, assignment: Assignment) -> None:
        """Let a device be a qube's from now on.

        Raises:
            DeviceAlreadyAssignedError: it is already.
            ReportableError: the qube cannot have it, or not so.
        """
        assignment = self._checked(frontend, assignment)
        device = self.text(assignment)
        async with self._world.editing() as edit:
            _require_there(edit, frontend)
            for one in frontend.assignments:
                if one.is_of(*_identity(assignment)):
                    raise DeviceAlreadyAssignedError(device, frontend.name)
            edit.touch(frontend).assignments = (*frontend.assignments, assignment)
            for kind in ("device-pre-assign", "device-assign"):
                name = f"{kind}:{assignment.devclass}"
                edit.tell(frontend, name, device=device, options=dict(assignment.options))

    async def unassign(self, frontend: Qube, assignment: Assignment) -> None:
        """Let a device be the qube's no more; what it has now it keeps.

        Raises:
            DeviceNotAssignedError: it is not.
        """
        async with self._world.editing() as edit:
            _require_there(edit, frontend)
            found = self.assignment(frontend, assignment)
            if found is None:
                raise DeviceNotAssignedError(self.text(assignment), frontend.name)
            edit.touch(frontend).assignments = tuple(
                one for one in frontend.assignments if one is not found
            )
            edit.tell(frontend, f"device-unassign:{found.devclass}", device=self.text(found))

    async def set_mode(self, frontend: Qube, assignment: Assignment, mode: str) -> None:
        """Change how a device comes to be a qube's.

        Raises:
            ValueRefusedError: it is not assigned.
        """
        async with self._world.editing() as edit:
            _require_there(edit, frontend)
            found = self.assignment(frontend, assignment)
            if found is None:
                raise ValueRefusedError(
                    f"Device {self.text(assignment)} is not assigned to {frontend.name}"
                )
            if found.mode == mode:
                return
            changed = self._checked(frontend, replace(found, mode=mode))
            edit.touch(frontend).assignments = tuple(
                changed if one is found else one for one in frontend.assignments
            )
            device, devclass = self.text(found), found.devclass
            options = dict(found.options)
            edit.tell(frontend, f"device-pre-assign:{devclass}", device=device, options=options)
            edit.tell(frontend, f"device-assignment-changed:{devclass}", device=device)

    def assignment(self, frontend: Qube, wanted: Assignment) -> Assignment | None:
        """The assignment of the same device, if there is one."""
        for one in frontend.assignments:
            if one.is_of(*_identity(wanted)):
                return one
        return None

    async def attach(self, frontend: Qube, device: DeviceInfo, options: Mapping[str, str]) -> None:
        """Give a device to a running qube.

        Raises:
            ReportableError: it cannot have it.
            RefusedSilentlyError: it is never to have a device of that kind.
        """
        driver = self._drivers[device.devclass]
        found = _options(device.devclass, options)
        _check_class(frontend, device.devclass, device.backend)
        if (
            device.devclass == "pci"
            and value_of(self._world.system, frontend, "virt_mode") == "pvh"
        ):
            raise RefusedError(f"Qube {frontend.name} is pvh, and such have no PCI devices")
        async with self._world.lock(frontend.uuid):
            if frontend.halted:
                raise NotRunningError(frontend.name)
            if (holder := self.holder(device)) is not None:
                raise DeviceAlreadyAttachedError(str(device.name), holder.name)
            self._check_denied(frontend, device)
            told = {"device": str(device.name), "options": found}
            tell = self._world.events.tell
            tell(frontend, f"device-pre-attach:{device.devclass}", **told)
            await driver.attach(frontend.name, device, found)
            self._attached.setdefault(frontend.uuid, []).append(Attached(device, found))
            tell(frontend, f"device-attach:{device.devclass}", **told)

    async def detach(self, frontend: Qube, devclass: str, backend: str, port: str) -> None:
        """Take a device away from a qube.

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

    def check_start(self, qube: Qube) -> None:
        """Refuse to start a qube without what it requires.

        Raises:
            RefusedError: something is missing, or cannot be given to it.
        """
        for assignment in qube.assignments:
            if assignment.mode != "required":
                continue
            name = DeviceName(self._backend(assignment), assignment.port, assignment.device_id)
            if not self.present(assignment.devclass, name):
                raise RefusedError(
                    f"Qube {qube.name} requires {assignment.devclass} device {name}, which is not "
                    "there",
                    f"Plug it in, or: qvm-device {assignment.devclass} unassign {qube.name} {name}",
                )
            raise RefusedError(
                f"Qube {qube.name} requires {assignment.devclass} device {name}, and devices are "
                "not given to a starting qube yet",
                f"Start it without: qvm-device {assignment.devclass} unassign {qube.name} {name}",
            )

    def text(self, assignment: Assignment) -> str:
        """A device as events name it."""
        backend = self._backend(assignment)
        return str(DeviceName(backend, assignment.port, assignment.device_id))

    def _backend(self, assignment: Assignment) -> str:
        backend = self._world.system.find(assignment.backend)
        return ANY if backend is None else backend.name

    def _checked(self, frontend: Qube, assignment: Assignment) -> Assignment:
        if frontend.klass is QubeClass.REMOTE:
            raise RefusedError(f"Qube {frontend.name} is on another system and has no devices here")
        if assignment.port == ANY and assignment.device_id == ANY:
            raise ValueRefusedError("Name the port or the device; any of both is none")
        _check_class(frontend, assignment.devclass, self._backend(assignment))
        pinned = frontend.properties.get("virt_mode")
        if assignment.devclass == "pci" and pinned == "pvh":
            raise RefusedError(
                f"Qube {frontend.name} is pvh, and such have no PCI devices",
                f"Change it first: qvm-prefs {frontend.name} virt_mode hvm",
            )
        return replace(assignment, options=_options(assignment.devclass, assignment.options))

    def _check_denied(self, frontend: Qube, device: DeviceInfo) -> None:
        denied = interfaces_of(str(value_of(self._world.system, frontend, "devices_denied") or ""))
        for code in interfaces_of(device.interfaces):
            if denied and (code.startswith("?") or any(matches(one, code) for one in denied)):
                raise RefusedSilentlyError(f"{frontend.name} is denied devices such as {code}")


def _identity(assignment: Assignment) -> tuple[str, UUID | None, str, str]:
    return assignment.devclass, assignment.backend, assignment.port, assignment.device_id


def _options(devclass: str, options: Mapping[str, str]) -> dict[str, str]:
    try:
        return checked(devclass, options)
    except OptionError as error:
        raise ValueRefusedError(str(error)) from None


def _check_class(frontend: Qube, devclass: str, backend: str) -> None:
    """Refuse what a class of devices forbids, whoever the qubes are."""
    if devclass != "pci":
        return
    if backend != "dom0":
        raise RefusedError("PCI devices are dom0's alone to give")
    if frontend.klass is QubeClass.ADMIN:
        raise RefusedError("dom0 has its PCI devices already")


def _require_there(edit: Edit, qube: Qube) -> None:
    if qube.uuid not in edit.system.qubes:
        raise QubeNotFoundError(qube.name)
