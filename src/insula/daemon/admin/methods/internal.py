"""What programs of the system itself ask for (admin-api.md section 4.13)."""

import json
from uuid import UUID

from insula.daemon.admin.calls import Call, Method
from insula.daemon.admin.methods.domains import state_of
from insula.daemon.model.properties.qubes import BY_CLASS, value_of
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System


async def system_info(call: Call) -> str:
    """What a policy is evaluated against, as JSON."""
    system = call.api.world.system
    return json.dumps({"domains": {qube.name: _info(system, qube) for qube in system.in_order()}})


def _info(system: System, qube: Qube) -> dict[str, object]:
    return {
        "internal": qube.features.get("internal"),
        "tags": sorted(qube.tags),
        "type": str(qube.klass),
        "template_for_dispvms": bool(qube.properties.get("template_for_dispvms", False)),
        "default_dispvm": _reference(system, qube, "default_dispvm"),
        "guivm": _reference(system, qube, "guivm"),
        "relayvm": _reference(system, qube, "relayvm"),
        "transport_rpc": qube.properties.get("transport_rpc"),
        "icon": f"appvm-{qube.label}",
        "label": system.labels[qube.label].color,
        "power_state": state_of(qube),
        "uuid": str(qube.uuid),
    }


def _reference(system: System, qube: Qube, name: str) -> str | None:
    if name not in BY_CLASS[qube.klass]:
        return None
    value = value_of(system, qube, name)
    found = system.find(value) if isinstance(value, UUID) else None
    return None if found is None else found.name


async def suspend_all(call: Call) -> str:
    await call.api.sleeping.suspend_all()
    return ""


async def resume_all(call: Call) -> str:
    await call.api.sleeping.resume_all()
    return ""


METHODS: dict[str, Method] = {
    "internal.GetSystemInfo": Method(run=system_info, destination="dom0"),
    # Their arguments and payloads are ignored.
    "internal.SuspendPre": Method(run=suspend_all, argument=True, payload=True),
    "internal.SuspendPost": Method(run=resume_all, argument=True, payload=True),
}
