"""The system as policies see it (admin-api.md section 4.13)."""

from uuid import UUID

from insula.daemon.model.properties.qubes import BY_CLASS, value_of
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.model.system import System


def domains(system: System, *also: Qube) -> dict[str, dict[str, object]]:
    """All qubes, by name. also: some that are no more."""
    return {qube.name: _described(system, qube) for qube in (*also, *system.in_order())}


def icons(system: System) -> dict[str, str]:
    """The icon of each qube, and of what disposables may be made from (qrexec-wire.md 11.6)."""
    found: dict[str, str] = {}
    for qube in system.in_order():
        found[qube.name] = str(value_of(system, qube, "icon"))
        if qube.properties.get("template_for_dispvms"):
            found[f"@dispvm:{qube.name}"] = f"dispvm-{qube.label}"
    return found


def state_of(qube: Qube) -> str:
    """A qube's power state as clients see it."""
    return str(qube.power if qube.klass.is_machine else PowerState.RUNNING)


def _described(system: System, qube: Qube) -> dict[str, object]:
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
