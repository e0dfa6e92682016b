"""admin.vm.Create and CreateInPool, their checks in the order of admin-api.md section 4.1."""

import re
from uuid import UUID

from insula.daemon.admin.calls import Call
from insula.daemon.lifecycle.administration import NewQube
from insula.daemon.model.errors import (
    LabelNotFoundError,
    RefusedError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.qube import Qube, QubeClass, check_name
from insula.daemon.model.system import System

_LABEL = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_VOLUMES = ("root", "private", "volatile", "kernel")
_KERNEL = "kernel"
# Volumes that are made from the template's, and lie where that lies.
_SNAPSHOTS = {QubeClass.APP: ("root",), QubeClass.DISPOSABLE: ("root", "private")}
_DEFAULTS = {QubeClass.APP: "default_template", QubeClass.DISPOSABLE: "default_dispvm"}


async def create_qube(call: Call, *, pools: bool) -> str:
    """Make the qube of a class; the answer is empty."""
    system = call.api.world.system
    klass = QubeClass(call.method.rpartition(".")[2])
    template = None
    if call.argument:
        if "template" not in BY_CLASS[klass]:
            raise ValueRefusedError(f"A {klass} has no template")
        template = system.named(call.argument)
    found = _parameters(system, call.payload_text(), pools=pools)
    if system.has_name(found["name"]):
        raise ValueRefusedError(f"A qube named {found['name']} exists already")
    if klass is QubeClass.ADMIN:
        raise RefusedSilentlyError("there is one admin domain, and there can be no other")
    _check_places(system, klass, found)
    await call.api.administration.create(
        NewQube(
            klass=klass,
            name=found["name"],
            label=found["label"],
            template=template or _default_template(system, klass),
            creator=call.source,
            pools=_pools(found),
        )
    )
    return ""


def _pools(found: dict[str, str]) -> dict[str, str]:
    """The pools chosen for volumes that the new qube writes, by their names."""
    if "pool" in found:
        return {name: found["pool"] for name in _VOLUMES if name != _KERNEL}
    chosen = {key.removeprefix("pool:"): pool for key, pool in found.items() if ":" in key}
    return {name: pool for name, pool in chosen.items() if name != _KERNEL}


def _parameters(system: System, text: str, *, pools: bool) -> dict[str, str]:
    """`key=value` items, each key once; the first that is wrong decides what is answered.

    Raises:
        ReportableError: a value is not acceptable.
        RefusedSilentlyError: they are not of that form, or an item is missing or unknown.
    """
    found: dict[str, str] = {}
    for item in text.split(" "):
        key, equals, value = item.partition("=")
        if not equals or key in found:
            raise RefusedSilentlyError(f"not a parameter, or given twice: {item!r}")
        found[key] = value
        if key == "name":
            check_name(value)
        elif key == "label":
            found[key] = _label(system, value)
        elif pools and key.partition(":")[0] == "pool":
            _check_pool(system, key, found)
        else:
            raise RefusedSilentlyError(f"unknown parameter {key!r}")
    if "name" not in found or "label" not in found:
        raise RefusedSilentlyError("a new qube has a name and a label")
    return found


def _label(system: System, text: str) -> str:
    if _LABEL.fullmatch(text) is None or text.isdigit():
        raise RefusedSilentlyError(f"not a label: {text!r}")
    if text not in system.labels:
        raise LabelNotFoundError(text, ", ".join(system.labels))
    return text


def _check_pool(system: System, key: str, found: dict[str, str]) -> None:
    _, colon, volume = key.partition(":")
    if colon and volume not in _VOLUMES:
        raise RefusedSilentlyError(f"unknown volume {volume!r}")
    if "pool" in found and len([one for one in found if one.startswith("pool")]) > 1:
        raise RefusedSilentlyError("either one pool or one for each volume")
    if found[key] not in system.pools:
        raise RefusedError(
            f"There is no pool {found[key]!r}", f"There are {', '.join(system.pools)}"
        )


def _check_places(system: System, klass: QubeClass, found: dict[str, str]) -> None:
    """Refuse pools that cannot hold what they were chosen for.

    Raises:
        RefusedError: one cannot.
    """
    for key, name in found.items():
        chosen, colon, volume = key.partition(":")
        if chosen != "pool":
            continue
        if colon and volume in _SNAPSHOTS.get(klass, ()):
            raise RefusedError(f"The {volume} volume of a {klass} lies where its template's does")
        if system.pools[name].holds_kernels != (volume == _KERNEL):
            raise RefusedError(f"Pool {name} does not hold {volume or 'such'} volumes")


def _default_template(system: System, klass: QubeClass) -> Qube | None:
    """The template of a qube for which none is given.

    Raises:
        ValueRefusedError: there is none.
    """
    name = _DEFAULTS.get(klass)
    if name is None:
        return None
    value = system.properties.get(name)
    found = system.find(value) if isinstance(value, UUID) else None
    if found is None:
        error = ValueRefusedError(f"No template is given, and there is no {name}")
        error.hint = f"Set it with: qubes-prefs {name} NAME"
        raise error
    return found
