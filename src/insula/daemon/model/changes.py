"""Changes of a system: each makes one and returns the events that tell of it, in their order.

Whoever calls keeps the result in the store and only then sends the events.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from insula.daemon.model.errors import (
    FeatureNotFoundError,
    TagNotFoundError,
    ValueRefusedError,
)
from insula.daemon.model.properties.definition import Access, Property, holds, text_of
from insula.daemon.model.properties.qubes import BY_CLASS, INHERITED, stored, value_of
from insula.daemon.model.qube import Qube, QubeClass, Value
from insula.daemon.model.system import System
from insula.protocol.admin import Event

# Properties whose value follows from another, and so is told of as reset when that one changes.
_DERIVED: dict[str, tuple[str, ...]] = {
    "label": ("icon",),
    "template_for_dispvms": ("icon",),
    "netvm": (
        *("visible_ip", "visible_ip6", "visible_gateway", "visible_gateway6"),
        *("gateway", "gateway6"),
    ),
}
_GUARDED_TAG = "created-by-"
_FOLLOWING_TAGS = ("guivm", "audiovm")


@contextmanager
def undone_on_failure(qube: Qube) -> Iterator[None]:
    """Put a qube back as it was when the block fails, as when its change could not be kept."""
    before = (
        *(qube.label, dict(qube.properties), dict(qube.features)),
        *(set(qube.tags), dict(qube.volumes)),
    )
    try:
        yield
    except BaseException:
        qube.label, qube.properties, qube.features, qube.tags, qube.volumes = before
        raise


def event(qube: Qube | None, name: str, /, **fields: object) -> Event:
    """An event about a qube, or about the system."""
    subject = "" if qube is None else qube.name
    return Event(subject, name, {key: str(value) for key, value in fields.items()})


def set_property(system: System, qube: Qube, prop: Property, value: Value) -> list[Event]:
    """Give a qube's property an explicit value.

    Raises:
        ReportableError: the rest of the system forbids that value; nothing was changed.
    """
    if prop.check is not None:
        prop.check(system, qube, value)
    fields = _told(system, prop, value, holds(system, qube, prop, stored(qube))[1])
    if prop.name == "label":
        qube.label = str(value)
    else:
        qube.properties[prop.name] = value
    return [
        event(qube, f"property-pre-set:{prop.name}", **fields),
        event(qube, f"property-set:{prop.name}", **fields),
        *_follow(system, qube, prop.name),
    ]


def reset_property(system: System, qube: Qube, prop: Property) -> list[Event]:
    """Let a qube's property be its default again.

    Raises:
        ValueRefusedError: it has to have an explicit value, or its default is not possible.
    """
    if prop.access is Access.READ_ONLY or prop.name not in stored(qube):
        return []
    if not prop.resettable:
        raise ValueRefusedError(f"{prop.name} of {qube.name} cannot be unset")
    if prop.check is not None and prop.default is not None:
        prop.check(system, qube, prop.default(system, qube))
    old = qube.properties.pop(prop.name)
    fields = {"name": prop.name, "oldvalue": _shown(system, old)}
    return [
        *(
            event(qube, f"property-{kind}:{prop.name}", **fields)
            for kind in ("pre-reset", "pre-del", "reset", "del")
        ),
        *_follow(system, qube, prop.name),
    ]


def set_system_property(system: System, prop: Property, value: Value) -> list[Event]:
    """Give a property of the system an explicit value.

    Raises:
        ReportableError: the rest of the system forbids that value; nothing was changed.
    """
    if prop.check is not None:
        prop.check(system, system.dom0, value)
    fields = _told(system, prop, value, holds(system, system.dom0, prop, system.properties)[1])
    system.properties[prop.name] = value
    return [
        event(None, f"property-pre-set:{prop.name}", **fields),
        event(None, f"property-set:{prop.name}", **fields),
    ]


def reset_system_property(system: System, prop: Property) -> list[Event]:
    """Let a property of the system be its default again."""
    if prop.name not in system.properties:
        return []
    fields = {"name": prop.name, "oldvalue": _shown(system, system.properties.pop(prop.name))}
    return [
        event(None, f"property-{kind}:{prop.name}", **fields)
        for kind in ("pre-reset", "pre-del", "reset", "del")
    ]


def set_feature(qube: Qube, name: str, value: str) -> list[Event]:
    """Give a feature of a qube a value."""
    fields = {"feature": name, "value": value}
    if name in qube.features:
        fields["oldvalue"] = qube.features[name]
    qube.features[name] = value
    events = [
        event(qube, f"domain-feature-pre-set:{name}", **fields),
        event(qube, f"domain-feature-set:{name}", **fields),
    ]
    if name == "servicevm":
        events.append(event(qube, "property-reset:icon", name="icon"))
    return events


def remove_feature(qube: Qube, name: str) -> list[Event]:
    """Take a feature away.

    Raises:
        FeatureNotFoundError: the qube has none of that name.
    """
    if name not in qube.features:
        raise FeatureNotFoundError(qube.name, name)
    del qube.features[name]
    events = [
        event(qube, f"domain-feature-{kind}:{name}", feature=name)
        for kind in ("pre-delete", "delete")
    ]
    if name == "servicevm":
        events.append(event(qube, "property-reset:icon", name="icon"))
    return events


def add_tag(qube: Qube, tag: str) -> list[Event]:
    """Give a qube a tag; nothing happens when it has it."""
    if tag in qube.tags:
        return []
    qube.tags.add(tag)
    return [event(qube, f"domain-tag-add:{tag}", tag=tag)]


def remove_tag(qube: Qube, tag: str) -> list[Event]:
    """Take a tag away.

    Raises:
        TagNotFoundError: the qube has no such tag.
    """
    if tag not in qube.tags:
        raise TagNotFoundError(qube.name, tag)
    qube.tags.remove(tag)
    return [event(qube, f"domain-tag-delete:{tag}", tag=tag)]


def is_guarded(tag: str) -> bool:
    """Whether dom0 alone may set and remove a tag."""
    return tag.startswith(_GUARDED_TAG)


def users_of(system: System, qube: Qube) -> list[str]:
    """What refers to a qube and so keeps it from being removed (admin-api.md section 8.6)."""
    used = [
        f"global property {name}"
        for name, value in sorted(system.properties.items())
        if value == qube.uuid
    ]
    for other in system.in_order():
        if other is qube:
            continue
        used += [
            f"{name} for {other.name}"
            for name, value in sorted(other.properties.items())
            if value == qube.uuid
        ]
    return used


def follow_with_tags(system: System, qube: Qube) -> list[Event]:
    """Let the tags that name a qube's GUI and audio qubes follow its properties."""
    if qube.klass is QubeClass.ADMIN:
        return []
    events = []
    for name in _FOLLOWING_TAGS:
        value = value_of(system, qube, name)
        found = system.find(value) if isinstance(value, UUID) else None
        wanted = None if found is None else f"{name}-{found.name}"
        for tag in sorted(qube.tags):
            if tag.startswith(f"{name}-") and tag != wanted:
                events += remove_tag(qube, tag)
        if wanted is not None:
            events += add_tag(qube, wanted)
    return events


def _follow(system: System, qube: Qube, name: str) -> list[Event]:
    """What else changes with a property of a qube."""
    events = [
        event(qube, f"property-reset:{derived}", name=derived) for derived in _DERIVED.get(name, ())
    ]
    if name in INHERITED:
        events += [
            event(child, f"property-reset:{name}", name=name)
            for child in system.made_from(qube)
            if name in BY_CLASS[child.klass] and name not in child.properties
        ]
    if name in _FOLLOWING_TAGS:
        events += follow_with_tags(system, qube)
    if name == "provides_network":
        if qube.properties.get(name):
            events += set_feature(qube, "servicevm", "1")
        elif "servicevm" in qube.features:
            events += remove_feature(qube, "servicevm")
    return events


def _told(system: System, prop: Property, value: Value, old: Value) -> dict[str, str]:
    fields = {"name": prop.name, "newvalue": _shown(system, value)}
    if old is not None:
        fields["oldvalue"] = _shown(system, old)
    return fields


def _shown(system: System, value: Value) -> str:
    """A value as events spell it, where absent objects are None."""
    return "None" if value is None else text_of(system, value)
