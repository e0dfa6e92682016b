"""What else changes with a property or a feature (admin-api.md sections 5.3 and 6.7)."""

from collections.abc import Iterable
from uuid import UUID

from insula.daemon.model.edit import Edit
from insula.daemon.model.features import DEFERRED_NETVM, drop_feature, put_feature, tag_alone
from insula.daemon.model.properties.defaults import gui_qube
from insula.daemon.model.properties.definition import shown, text_of
from insula.daemon.model.properties.network import clients
from insula.daemon.model.properties.qubes import BY_CLASS, INHERITED, property_of, value_of
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.system import System

# Properties whose value follows from another, and so is told of as reset when that one changes.
_VISIBLE = ("visible_ip", "visible_ip6", "visible_gateway", "visible_gateway6")
_GATEWAYS = ("gateway", "gateway6")
_DERIVED: dict[str, tuple[str, ...]] = {
    "label": ("icon",),
    "template_for_dispvms": ("icon",),
    "netvm": (*_VISIBLE, *_GATEWAYS),
    "provides_network": _GATEWAYS,
    "ip": ("visible_ip", "gateway"),
    "ip6": ("visible_ip6", "gateway6"),
}
_TO_CLIENTS = {"ip": "visible_gateway", "ip6": "visible_gateway6"}
_OF_FEATURE = {
    "servicevm": "icon",
    "boot-mode.active": "bootmode",
    "boot-mode.appvm-default": "appvm_default_bootmode",
}
_TAGGED = ("guivm", "audiovm", "relayvm")
_CLOCK_SERVICE = "service.clocksync"


def tell_derived(edit: Edit, qube: Qube, names: Iterable[str], **fields: object) -> None:
    """Tell that computed properties may have changed."""
    for name in names:
        if name in BY_CLASS[qube.klass]:
            edit.tell(qube, f"property-reset:{name}", name=name, **fields)


def follow_property(
    edit: Edit, qube: Qube, name: str, old: Value, layouts: dict[UUID, Value]
) -> None:
    """What changes with a property of a qube. layouts: keyboard layouts as they were before."""
    system = edit.system
    if name == "netvm":
        _defer_netvm(edit, qube, old)
    tell_derived(edit, qube, _DERIVED.get(name, ()))
    if name in _TO_CLIENTS:
        for client in clients(system, qube):
            tell_derived(edit, client, (_TO_CLIENTS[name],))
    if name in INHERITED:
        _tell_inheritors(edit, qube, name)
    if name == "appvm_default_bootmode":
        for child in system.made_from(qube):
            tell_derived(edit, child, ("bootmode",))
    if name in _TAGGED:
        follow_with_tags(edit, qube)
    if name in ("guivm", "keyboard_layout"):
        _tell_layouts(edit, layouts)
    if name == "provides_network":
        if qube.properties.get(name):
            put_feature(edit, qube, "servicevm", "1")
            follow_feature(edit, qube, "servicevm")
        elif "servicevm" in qube.features:
            drop_feature(edit, qube, "servicevm")
            follow_feature(edit, qube, "servicevm")


def follow_feature(edit: Edit, qube: Qube, name: str) -> None:
    """What changes with a feature of a qube."""
    if name not in _OF_FEATURE:
        return
    tell_derived(edit, qube, (_OF_FEATURE[name],))
    if name == "boot-mode.appvm-default":
        for child in edit.system.made_from(qube):
            tell_derived(edit, child, ("bootmode",))


def followers(system: System, name: str) -> dict[UUID, Value]:
    """Qubes for which a property of the system is the default of theirs, with its value there."""
    prop = {"default_netvm": "netvm", "default_guivm": "guivm", "default_audiovm": "audiovm"}.get(
        name, name
    )
    found: dict[UUID, Value] = {}
    if name not in ("default_netvm", "default_guivm", "default_audiovm", "default_dispvm"):
        return found
    for qube in system.qubes.values():
        if prop not in BY_CLASS[qube.klass] or prop in qube.properties:
            continue
        # These two classes have a default of their own.
        if (name, qube.klass) in (
            ("default_netvm", QubeClass.TEMPLATE),
            ("default_dispvm", QubeClass.DISPOSABLE),
        ):
            continue
        found[qube.uuid] = value_of(system, qube, prop)
    return found


def follow_setting(
    edit: Edit,
    name: str,
    old: Value,
    before: dict[UUID, Value],
    layouts: dict[UUID, Value],
) -> None:
    """What changes with a property of the system. before: what followers gave before it changed."""
    system = edit.system
    if name == "clockvm":
        _move_clock(edit, old)
    for uuid, former in before.items():
        qube = system.qubes[uuid]
        match name:
            case "default_netvm":
                fields = _change(system, "netvm", value_of(system, qube, "netvm"), former)
                edit.tell(qube, "property-pre-set:netvm", **fields)
                oldvalue = shown(system, former)
                edit.tell(qube, "property-reset:netvm", name="netvm", oldvalue=oldvalue)
                tell_derived(edit, qube, _DERIVED["netvm"])
                _defer_netvm(edit, qube, former)
            case "default_guivm" | "default_audiovm":
                prop = name.removeprefix("default_")
                fields = _change(system, prop, value_of(system, qube, prop), former)
                edit.tell(qube, f"property-set:{prop}", **fields)
                follow_with_tags(edit, qube)
            case "default_dispvm":
                tell_derived(edit, qube, (name,), oldvalue=shown(system, former))
    if name == "default_guivm":
        _tell_layouts(edit, layouts)


def follow_with_tags(edit: Edit, qube: Qube) -> None:
    """Let the tags that name a qube's GUI, audio and relay qubes follow its properties."""
    for name in _TAGGED:
        if name not in BY_CLASS[qube.klass]:
            continue
        value = value_of(edit.system, qube, name)
        found = edit.system.find(value) if isinstance(value, UUID) else None
        tag_alone(edit, qube, f"{name}-", None if found is None else f"{name}-{found.name}")


def layouts_by_default(system: System, name: str) -> dict[UUID, Value]:
    """Keyboard layouts of qubes that set none, where a property of that name decides them."""
    if name not in ("guivm", "keyboard_layout", "default_guivm"):
        return {}
    return {
        qube.uuid: value_of(system, qube, "keyboard_layout")
        for qube in system.qubes.values()
        if "keyboard_layout" not in qube.properties and gui_qube(system, qube) is not None
    }


def _tell_layouts(edit: Edit, before: dict[UUID, Value]) -> None:
    """Tell of keyboard layouts that are others than before, though not set on their qubes."""
    for uuid, old in before.items():
        qube = edit.system.qubes[uuid]
        held = property_of(edit.system, qube, "keyboard_layout")
        if held.is_default and held.value != old:
            tell_derived(edit, qube, ("keyboard_layout",), oldvalue=shown(edit.system, old))


def _tell_inheritors(edit: Edit, template: Qube, name: str) -> None:
    for child in edit.system.made_from(template):
        if name in BY_CLASS[child.klass] and name not in child.properties:
            tell_derived(edit, child, (name,))
            _tell_inheritors(edit, child, name)


def _defer_netvm(edit: Edit, qube: Qube, old: Value) -> None:
    """Remember which netvm a qube that stands still has until it goes on."""
    if not qube.standing_still:
        return
    now = text_of(edit.system, value_of(edit.system, qube, "netvm"))
    had = qube.features.get(DEFERRED_NETVM, text_of(edit.system, old))
    if now != had and DEFERRED_NETVM not in qube.features:
        put_feature(edit, qube, DEFERRED_NETVM, had)
    elif now == had and DEFERRED_NETVM in qube.features:
        drop_feature(edit, qube, DEFERRED_NETVM)


def _move_clock(edit: Edit, old: Value) -> None:
    system = edit.system
    new = system.properties.get("clockvm")
    former = system.find(old) if isinstance(old, UUID) else None
    if former is not None and old != new and _CLOCK_SERVICE in former.features:
        drop_feature(edit, former, _CLOCK_SERVICE)
    chosen = system.find(new) if isinstance(new, UUID) else None
    if chosen is not None and old != new:
        put_feature(edit, chosen, _CLOCK_SERVICE, "1")


def _change(system: System, name: str, new: Value, old: Value) -> dict[str, str]:
    return {"name": name, "newvalue": shown(system, new), "oldvalue": shown(system, old)}
