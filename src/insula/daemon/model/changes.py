"""Changes of a system that its administrators ask for: each adds to an Edit, or refuses."""

from collections.abc import Collection

from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import ValueRefusedError
from insula.daemon.model.features import MEMINFO_WRITER, check_feature, drop_feature, put_feature
from insula.daemon.model.following import (
    follow_feature,
    follow_property,
    follow_setting,
    followers,
    layouts_by_default,
)
from insula.daemon.model.properties.definition import Access, Held, Property, held, shown
from insula.daemon.model.properties.qubes import BY_CLASS, stored
from insula.daemon.model.qube import Qube, Value
from insula.daemon.model.system import System


def set_property(edit: Edit, qube: Qube, prop: Property, value: Value) -> None:
    """Give a qube's property an explicit value.

    Raises:
        ReportableError: the rest of the system forbids that value; nothing was changed.
    """
    system = edit.system
    if prop.check is not None:
        prop.check(system, qube, value)
    before = held(system, qube, prop, stored(qube))
    fields = _told(system, prop, value, before)
    layouts = layouts_by_default(system, prop.name)
    if prop.name == "label":
        edit.touch(qube).label = str(value)
    else:
        edit.touch(qube).properties[prop.name] = value
    edit.tell(qube, f"property-pre-set:{prop.name}", **fields)
    edit.tell(qube, f"property-set:{prop.name}", **fields)
    follow_property(edit, qube, prop.name, before.value, layouts)


def reset_property(edit: Edit, qube: Qube, prop: Property) -> None:
    """Let a qube's property be its default again; one that is computed always is.

    Raises:
        ReportableError: it has to have an explicit value, or its default is not possible.
    """
    system = edit.system
    if prop.access is Access.READ_ONLY:
        return
    if not prop.resettable:
        raise ValueRefusedError(f"{prop.name} of {qube.name} cannot be unset")
    was_set = prop.name in qube.properties
    if was_set and prop.check is not None and prop.default is not None:
        prop.check(system, qube, prop.default(system, qube))
    before = held(system, qube, prop, stored(qube))
    layouts = layouts_by_default(system, prop.name)
    edit.touch(qube).properties.pop(prop.name, None)
    _tell_reset(edit, qube, prop, before)
    if was_set:
        follow_property(edit, qube, prop.name, before.value, layouts)


def set_setting(edit: Edit, prop: Property, value: Value) -> None:
    """Give a property of the system an explicit value.

    Raises:
        ReportableError: the rest of the system forbids that value; nothing was changed.
    """
    system = edit.system
    if prop.check is not None:
        prop.check(system, system.dom0, value)
    old = held(system, system.dom0, prop, system.properties)
    before, layouts = followers(system, prop.name), layouts_by_default(system, prop.name)
    edit.touch_settings()[prop.name] = value
    fields = _told(system, prop, value, old)
    edit.tell(None, f"property-pre-set:{prop.name}", **fields)
    edit.tell(None, f"property-set:{prop.name}", **fields)
    follow_setting(edit, prop.name, old.value, before, layouts)


def reset_setting(edit: Edit, prop: Property) -> None:
    """Let a property of the system be its default again.

    Raises:
        ReportableError: the rest of the system forbids its default; nothing was changed.
    """
    system = edit.system
    was_set = prop.name in system.properties
    if was_set and prop.check is not None and prop.default is not None:
        prop.check(system, system.dom0, prop.default(system, system.dom0))
    old = held(system, system.dom0, prop, system.properties)
    before, layouts = followers(system, prop.name), layouts_by_default(system, prop.name)
    edit.touch_settings().pop(prop.name, None)
    _tell_reset(edit, None, prop, old)
    if was_set:
        follow_setting(edit, prop.name, old.value, before, layouts)


def set_feature(edit: Edit, qube: Qube, name: str, value: str) -> None:
    """Give a feature of a qube a value.

    Raises:
        ValueRefusedError: its name or value is not as it should be.
    """
    check_feature(edit.system, qube, name, value)
    put_feature(edit, qube, name, value)
    follow_feature(edit, qube, name)
    if name == MEMINFO_WRITER and "maxmem" in BY_CLASS[qube.klass]:
        # The old spelling of whether a qube's memory is balanced.
        prop = BY_CLASS[qube.klass]["maxmem"]
        if value:
            reset_property(edit, qube, prop)
        else:
            set_property(edit, qube, prop, 0)
        drop_feature(edit, qube, name)


def remove_feature(edit: Edit, qube: Qube, name: str) -> None:
    """Take a feature away.

    Raises:
        FeatureNotFoundError: the qube has none of that name.
    """
    drop_feature(edit, qube, name)
    follow_feature(edit, qube, name)


def users_of(system: System, qube: Qube, besides: Collection[str] = ()) -> list[str]:
    """What refers to a qube and so keeps it from being removed (admin-api.md section 8.6).

    besides: names of qubes that do not count.
    """
    used = [
        f"global property {name}"
        for name, value in sorted(system.properties.items())
        if value == qube.uuid
    ]
    for other in system.in_order():
        if other is qube or other.name in besides:
            continue
        used += [
            f"{name} for {other.name}"
            for name, value in sorted(other.properties.items())
            if value == qube.uuid
        ]
        used += [
            f"{assignment.devclass} device {assignment.port} for {other.name}"
            for assignment in other.assignments
            if assignment.backend == qube.uuid
        ]
    return used


def _tell_reset(edit: Edit, qube: Qube | None, prop: Property, before: Held) -> None:
    fields = {"name": prop.name}
    if before.exists:
        fields["oldvalue"] = shown(edit.system, before.value)
    for kind in ("pre-reset", "pre-del", "reset", "del"):
        edit.tell(qube, f"property-{kind}:{prop.name}", **fields)


def _told(system: System, prop: Property, value: Value, old: Held) -> dict[str, str]:
    fields = {"name": prop.name, "newvalue": shown(system, value)}
    if old.exists:
        fields["oldvalue"] = shown(system, old.value)
    return fields
