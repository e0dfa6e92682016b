"""Devices of qubes (admin-api.md section 4.8)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar
from uuid import UUID

from insula.daemon.admin.calls import Call, Method
from insula.daemon.lifecycle import assigning
from insula.daemon.lifecycle.assigning import by_weight, name_of
from insula.daemon.model.assignments import CLASSES, STORED_MODES, Assignment
from insula.daemon.model.errors import (
    RefusedError,
    RefusedSilentlyError,
)
from insula.daemon.model.qube import Qube, QubeClass
from insula.protocol.devices import (
    ANY,
    MODES,
    DeviceInfo,
    DeviceName,
    check_device_id,
    parse_argument,
    parse_serialised,
    serialise,
)
from insula.protocol.errors import ProtocolError

_IDENTITY = ("device_id", "port_id", "devclass", "backend_domain")

T = TypeVar("T")


async def list_classes(_call: Call) -> str:
    return "".join(f"{devclass}\n" for devclass in CLASSES)


async def available(devclass: str, call: Call) -> str:
    devices = call.api.devices
    lines = {
        device.line(None if (holder := devices.holder(device)) is None else holder.name): device
        for device in devices.available(devclass, call.destination)
    }
    wanted = call.argument
    return _filtered(lines, lambda device: not wanted or device.port == wanted, wanted)


async def assigned(devclass: str, call: Call) -> str:
    lines = {
        _line(call, one): one for one in call.destination.assignments if one.devclass == devclass
    }
    backend, port = _place(call)

    def chosen(one: Assignment) -> bool:
        name = name_of(call.api.world.system, one)
        return not call.argument or (name.backend, name.port) == (backend, port)

    return _filtered(lines, chosen, call.argument)


async def attached(devclass: str, call: Call) -> str:
    frontend = call.destination
    lines = {}
    for one in call.api.devices.attached(devclass, frontend):
        owner = call.api.world.system.named(one.device.backend)
        modes = [
            assignment.mode
            for assignment in by_weight(frontend.assignments)
            if assignment.fits(devclass, owner.uuid, one.device.port, one.device.device_id)
        ]
        shown = Assignment(
            devclass=devclass,
            backend=owner.uuid,
            port=one.device.port,
            device_id=one.device.device_id,
            mode=modes[0] if modes else "manual",
            options=dict(one.options),
        )
        lines[_line(call, shown)] = one.device
    backend, port = _place(call)

    def chosen(device: DeviceInfo) -> bool:
        return not call.argument or (device.backend, device.port) == (backend, port)

    return _filtered(lines, chosen, call.argument)


async def assign(devclass: str, call: Call) -> str:
    wanted = _assignment(devclass, call)
    if wanted.mode == "manual":
        raise RefusedSilentlyError("what is attached by hand is not assigned")
    _refuse_remote(call.destination)
    await assigning.assign(call.api.world, call.destination, wanted)
    return ""


async def unassign(devclass: str, call: Call) -> str:
    _refuse_remote(call.destination)
    await assigning.unassign(call.api.world, call.destination, _named_assignment(devclass, call))
    return ""


async def set_assignment(devclass: str, call: Call) -> str:
    mode = call.payload_text()
    if mode not in STORED_MODES or call.destination.klass is QubeClass.REMOTE:
        raise RefusedSilentlyError(f"not a mode of an assignment: {mode!r}")
    wanted = _named_assignment(devclass, call)
    await assigning.set_mode(call.api.world, call.destination, wanted, mode)
    return ""


async def attach(devclass: str, call: Call) -> str:
    _refuse_remote(call.destination)
    name = _name(call)
    wanted = _assignment(devclass, call)
    meant = DeviceName(name.backend, name.port, wanted.device_id)
    await call.api.devices.attach(call.destination, devclass, meant, wanted.options)
    return ""


async def detach(devclass: str, call: Call) -> str:
    _refuse_remote(call.destination)
    name = _name(call)
    await call.api.devices.detach(call.destination, devclass, name.backend, name.port)
    return ""


def _refuse_remote(qube: Qube) -> None:
    if qube.klass is QubeClass.REMOTE:
        raise RefusedError(f"Qube {qube.name} is on another system and has no devices here")


def _filtered(lines: dict[str, T], chosen: Callable[[T], bool], wanted: str) -> str:
    """Sorted lines of those that are chosen; where one was asked for, there may be but one."""
    found = sorted(line for line, one in lines.items() if chosen(one))
    if wanted and len(found) > 1:
        raise RefusedSilentlyError(f"{len(found)} are meant by {wanted}")
    return "".join(f"{line}\n" for line in found)


def _place(call: Call) -> tuple[str, str]:
    backend, plus, port = call.argument.partition("+")
    if call.argument and not plus:
        raise RefusedSilentlyError(f"not a port of a qube: {call.argument!r}")
    return ANY if backend == "_" else backend, ANY if port == "_" else port


def _line(call: Call, one: Assignment) -> str:
    backend = name_of(call.api.world.system, one).backend
    items = [
        ("device_id", one.device_id),
        ("port_id", one.port),
        ("devclass", one.devclass),
        ("backend_domain", backend),
        ("mode", one.mode),
        ("frontend_domain", call.destination.name),
        *((f"_{name}", value) for name, value in one.options.items()),
    ]
    return f"{backend}+{one.port}:{one.device_id} {serialise(items)}"


def _name(call: Call) -> DeviceName:
    """The device that the argument names.

    Raises:
        RefusedSilentlyError: it names none, or a backend that is not there.
    """
    try:
        name = parse_argument(call.argument)
    except ProtocolError as error:
        raise RefusedSilentlyError(str(error)) from None
    if name.backend != ANY and not call.api.world.system.has_name(name.backend):
        raise RefusedSilentlyError(f"no qube {name.backend!r}")
    return name


def _identified(devclass: str, call: Call, name: DeviceName) -> str:
    """The id of the device that is meant: that of the one there, where the name leaves it open."""
    if name.device_id not in (None, ANY):
        return str(name.device_id)
    present = call.api.devices.present(devclass, name) if name.port != ANY else []
    return present[0].device_id if len(present) == 1 else ANY


def _named_assignment(devclass: str, call: Call) -> Assignment:
    """The assignment that the argument names; one of any device in a port comes first."""
    name = _name(call)
    wanted = Assignment(
        devclass=devclass,
        backend=_uuid(call, name),
        port=name.port,
        device_id=ANY if name.device_id is None else name.device_id,
        mode="manual",
    )
    if wanted.device_id != ANY or assigning.stored(call.destination, wanted):
        return wanted
    return replace(wanted, device_id=_identified(devclass, call, name))


def _assignment(devclass: str, call: Call) -> Assignment:
    """What the argument and the payload say together.

    Raises:
        RefusedSilentlyError: they contradict each other, or say what nobody knows.
    """
    name = _name(call)
    try:
        items = parse_serialised(call.payload_text())
        given = items.get("device_id")
        if given is not None:
            check_device_id(given)
    except ProtocolError as error:
        raise RefusedSilentlyError(str(error)) from None
    _check_agreement(devclass, call, name, items)
    mode = items.get("mode", "manual")
    if mode not in MODES:
        raise RefusedSilentlyError(f"unknown mode {mode!r}")
    return Assignment(
        devclass=devclass,
        backend=_uuid(call, name),
        port=name.port,
        device_id=_identified(devclass, call, name) if given is None else given,
        mode=mode,
        options={key[1:]: value for key, value in items.items() if key.startswith("_")},
    )


def _uuid(call: Call, name: DeviceName) -> UUID | None:
    return None if name.backend == ANY else call.api.world.system.named(name.backend).uuid


def _check_agreement(devclass: str, call: Call, name: DeviceName, items: dict[str, str]) -> None:
    expected = {
        "port_id": name.port,
        "devclass": devclass,
        "backend_domain": name.backend,
        "frontend_domain": call.destination.name,
    }
    if name.device_id not in (None, ANY):
        expected["device_id"] = str(name.device_id)
    for key, value in items.items():
        if key.startswith("_") or key == "mode":
            continue
        if key not in (*_IDENTITY, "frontend_domain"):
            raise RefusedSilentlyError(f"unknown key {key!r}")
        if value != expected.get(key, value):
            raise RefusedSilentlyError(f"{key} is {value!r}, not {expected[key]!r}")


_RUNS = {
    "Available": (available, False),
    "Assigned": (assigned, False),
    "Attached": (attached, False),
    "Assign": (assign, True),
    "Unassign": (unassign, False),
    "Set.assignment": (set_assignment, True),
    "Attach": (attach, True),
    "Detach": (detach, False),
}
METHODS = {
    "admin.deviceclass.List": Method(run=list_classes, destination="dom0"),
    **{
        f"admin.vm.device.{devclass}.{name}": Method(
            run=partial(run, devclass), argument=True, payload=payload
        )
        for devclass in CLASSES
        for name, (run, payload) in _RUNS.items()
    },
}
