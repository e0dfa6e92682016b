"""Interfaces of devices that are kept from qubes (admin-api.md section 4.8)."""

from collections.abc import Iterable

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model import changes
from insula.daemon.model.errors import (
    QubeNotFoundError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.properties.parsing import interfaces
from insula.daemon.model.properties.qubes import BY_CLASS, value_of
from insula.protocol.devices import INTERFACE_SIZE, interfaces_of

_DENIED = "devices_denied"


async def list_denied(call: Call) -> str:
    return "\n".join(interfaces_of(_denied(call)))


async def add(call: Call) -> str:
    added = _codes(call, call.payload_text())
    await _deny(call, {*interfaces_of(_denied(call)), *added})
    return ""


async def remove(call: Call) -> str:
    text = call.payload_text()
    before = interfaces_of(_denied(call))
    removed = before if text == "all" else _codes(call, text)
    await _deny(call, set(before) - set(removed))
    return ""


def _denied(call: Call) -> str:
    if _DENIED not in BY_CLASS[call.destination.klass]:
        raise RefusedSilentlyError("such a qube has no devices")
    return str(value_of(call.api.world.system, call.destination, _DENIED) or "")


def _codes(call: Call, text: str) -> tuple[str, ...]:
    if len(text) % INTERFACE_SIZE:
        raise ValueRefusedError(f"An interface has {INTERFACE_SIZE} characters")
    codes = interfaces_of(text)
    if len(set(codes)) != len(codes):
        raise ValueRefusedError("An interface is given twice")
    interfaces(call.api.world.system, call.destination, text)
    return codes


async def _deny(call: Call, codes: Iterable[str]) -> None:
    qube, text = call.destination, "".join(sorted(codes))
    if text == _denied(call):
        return
    async with call.api.world.editing() as edit:
        if qube.uuid not in edit.system.qubes:
            raise QubeNotFoundError(qube.name)
        changes.set_property(edit, qube, BY_CLASS[qube.klass][_DENIED], text)


METHODS = {
    "admin.vm.device.denied.List": Method(run=list_denied),
    # Their arguments are ignored.
    "admin.vm.device.denied.Add": Method(run=add, argument=True, payload=True),
    "admin.vm.device.denied.Remove": Method(run=remove, argument=True, payload=True),
}
