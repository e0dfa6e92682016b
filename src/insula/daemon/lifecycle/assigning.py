"""Which devices are to be whose: kept with the qube that they are for, and told of."""

from collections.abc import Iterable
from dataclasses import replace

from insula.daemon.devices.driver import OptionError, checked
from insula.daemon.lifecycle.world import World
from insula.daemon.model.assignments import Assignment
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import (
    DeviceAlreadyAssignedError,
    DeviceNotAssignedError,
    QubeNotFoundError,
    RefusedError,
    ValueRefusedError,
)
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.system import System
from insula.protocol.devices import ANY, DeviceName


async def assign(world: World, frontend: Qube, assignment: Assignment) -> None:
    """Let a device be a qube's from now on.

    Raises:
        DeviceAlreadyAssignedError: it is already.
        ReportableError: the qube cannot have it, or not so.
    """
    assignment = _checked(world.system, frontend, assignment)
    device, devclass = str(name_of(world.system, assignment)), assignment.devclass
    options = dict(assignment.options)
    async with world.editing() as edit:
        _require_there(edit, frontend)
        if stored(frontend, assignment) is not None:
            raise DeviceAlreadyAssignedError(device, frontend.name)
        edit.touch(frontend).assignments = (*frontend.assignments, assignment)
        for kind in ("device-pre-assign", "device-assign"):
            edit.tell(frontend, f"{kind}:{devclass}", device=device, options=options)


async def unassign(world: World, frontend: Qube, wanted: Assignment) -> None:
    """Let a device be the qube's no more; what it has now it keeps.

    Raises:
        DeviceNotAssignedError: it is not.
    """
    device = str(name_of(world.system, wanted))
    async with world.editing() as edit:
        _require_there(edit, frontend)
        found = stored(frontend, wanted)
        if found is None:
            raise DeviceNotAssignedError(device, frontend.name)
        kept = tuple(one for one in frontend.assignments if one is not found)
        edit.touch(frontend).assignments = kept
        edit.tell(frontend, f"device-unassign:{found.devclass}", device=device)


async def set_mode(world: World, frontend: Qube, wanted: Assignment, mode: str) -> None:
    """Change how a device comes to be a qube's.

    Raises:
        ValueRefusedError: it is not assigned.
    """
    device, devclass = str(name_of(world.system, wanted)), wanted.devclass
    async with world.editing() as edit:
        _require_there(edit, frontend)
        found = stored(frontend, wanted)
        if found is None:
            raise ValueRefusedError(f"Device {device} is not assigned to {frontend.name}")
        if found.mode == mode:
            return
        changed = _checked(world.system, frontend, replace(found, mode=mode))
        edit.touch(frontend).assignments = tuple(
            changed if one is found else one for one in frontend.assignments
        )
        options = dict(found.options)
        edit.tell(frontend, f"device-pre-assign:{devclass}", device=device, options=options)
        edit.tell(frontend, f"device-assignment-changed:{devclass}", device=device)


def stored(frontend: Qube, wanted: Assignment) -> Assignment | None:
    """The qube's assignment of the same device, if there is one."""
    for one in frontend.assignments:
        if one.is_of(wanted.devclass, wanted.backend, wanted.port, wanted.device_id):
            return one
    return None


def required(qube: Qube) -> list[Assignment]:
    """What a qube does not start without, the most specific first."""
    return by_weight(one for one in qube.assignments if one.mode == "required")


def by_weight(assignments: Iterable[Assignment]) -> list[Assignment]:
    """Assignments in the order in which they apply: port and id, port, id, anything."""
    return sorted(assignments, key=lambda one: (one.port == ANY, one.device_id == ANY))


def name_of(system: System, assignment: Assignment) -> DeviceName:
    """The device of an assignment."""
    backend = ANY
    if assignment.backend is not None:
        found = system.find(assignment.backend)
        # One that is gone is not any.
        backend = f"uuid:{assignment.backend}" if found is None else found.name
    return DeviceName(backend, assignment.port, assignment.device_id)


def check_class(frontend: Qube, devclass: str, backend: str) -> None:
    """Refuse what a class of devices forbids, whoever the qubes are.

    Raises:
        RefusedError: it does.
    """
    if devclass != "pci":
        return
    if backend != "dom0":
        raise RefusedError("PCI devices are dom0's alone to give")
    if frontend.klass is QubeClass.ADMIN:
        raise RefusedError("dom0 has its PCI devices already")


def pvh(frontend: Qube) -> RefusedError:
    """The refusal of PCI devices to a qube of that mode."""
    return RefusedError(
        f"Qube {frontend.name} is pvh, and such have no PCI devices",
        f"Change it first: qvm-prefs {frontend.name} virt_mode hvm",
    )


def _checked(system: System, frontend: Qube, assignment: Assignment) -> Assignment:
    devclass = assignment.devclass
    if frontend.klass is QubeClass.REMOTE:
        raise RefusedError(f"Qube {frontend.name} is on another system and has no devices here")
    if assignment.port == ANY and assignment.device_id == ANY:
        raise ValueRefusedError("Name the port or the device; any of both is none")
    check_class(frontend, devclass, name_of(system, assignment).backend)
    if devclass == "pci" and frontend.properties.get("virt_mode") == "pvh":
        raise pvh(frontend)
    try:
        return replace(assignment, options=checked(devclass, assignment.options))
    except OptionError as error:
        raise ValueRefusedError(str(error)) from None


def _require_there(edit: Edit, qube: Qube) -> None:
    if qube.uuid not in edit.system.qubes:
        raise QubeNotFoundError(qube.name)
