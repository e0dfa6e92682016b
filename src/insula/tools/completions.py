"""Names that the daemon knows, for completion. Calls are few, and none is waited for long."""

from collections.abc import Callable, Iterable, Sequence

from insula.client import admin
from insula.client.errors import QubesException
from insula.protocol.admin import (
    ADMIN_QUBE,
    ListedQube,
    parse_listed_qubes,
    parse_property_answer,
)

_TIMEOUT = 0.5  # seconds; who presses the key waits
_SERVICE, _SUPPORTED = "service.", "supported-service."


def of(kind: str, before: Sequence[str], current: str) -> Iterable[str]:
    """Names of a kind. before: the words up to the one at the cursor, current: that one so far.

    Raises:
        QubesException: the daemon does not say.
    """
    return _KINDS[kind](before, current)


def _lines(destination: str, method: str, argument: str = "") -> list[str]:
    content = admin.call(destination, method, argument, timeout=_TIMEOUT).decode()
    return [line for line in content.split("\n") if line]


def _listed() -> list[ListedQube]:
    content = admin.call(ADMIN_QUBE, "admin.vm.List", timeout=_TIMEOUT).decode()
    return parse_listed_qubes(content)


def _qubes(_before: Sequence[str], _current: str) -> list[str]:
    return [one.name for one in _listed()]


def _templates(_before: Sequence[str], _current: str) -> list[str]:
    return [one.name for one in _listed() if one.klass == "TemplateVM"]


def _named(before: Sequence[str]) -> str | None:
    """The first qube that the words name."""
    known = {one.name for one in _listed()}
    return next((word for word in before[1:] if word in known), None)


def _of_qube(method: str, where_none: bool = False) -> Callable[[Sequence[str], str], list[str]]:
    """A list of the qube named; where none is: of all qubes, or nothing."""

    def found(before: Sequence[str], _current: str) -> list[str]:
        qube = _named(before)
        if qube is not None:
            return _lines(qube, method)
        if not where_none:
            return []
        return sorted({line for one in _listed() for line in _lines(one.name, method)})

    return found


def _of_system(method: str) -> Callable[[Sequence[str], str], list[str]]:
    return lambda _before, _current: _lines(ADMIN_QUBE, method)


def _properties(before: Sequence[str], _current: str) -> list[str]:
    """Those of the qube named, else of a qube of each class."""
    qube = _named(before)
    qubes = [qube] if qube else {one.klass: one.name for one in _listed()}.values()
    return sorted({name for one in qubes for name in _lines(one, "admin.vm.property.List")})


def _values(before: Sequence[str], _current: str) -> list[str]:
    """Values that the property in the last word can have, if there are few."""
    qube = _named(before)
    method = "admin.vm.property.Get" if qube else "admin.property.Get"
    name = before[-1].replace("-", "_")
    content = admin.call(qube or ADMIN_QUBE, method, name, timeout=_TIMEOUT).decode()
    match parse_property_answer(content).type:
        case "bool":
            return ["True", "False"]
        case "vm":
            return [*_qubes(before, ""), "none"]
        case "label":
            return _lines(ADMIN_QUBE, "admin.label.List")
    return []


def _services(before: Sequence[str], _current: str) -> list[str]:
    qube = _named(before)
    features = _lines(qube, "admin.vm.feature.List") if qube else []
    return sorted(
        {
            name.removeprefix(prefix)
            for name in features
            for prefix in (_SERVICE, _SUPPORTED)
            if name.startswith(prefix)
        }
    )


def _columns(before: Sequence[str], current: str) -> list[str]:
    from insula.tools.ls_columns import COLUMNS  # noqa: PLC0415 - of one command alone

    done = current[: current.rfind(",") + 1]
    return [done + name.lower() for name in (*COLUMNS, *_properties(before[:1], ""))]


def _drivers(_before: Sequence[str], _current: str) -> list[str]:
    return [line.partition(" ")[0] for line in _lines(ADMIN_QUBE, "admin.pool.ListDrivers")]


def _volumes(_before: Sequence[str], current: str) -> list[str]:
    qube, colon, _ = current.partition(":")
    if not colon:
        return [f"{one.name}:" for one in _listed()]
    return [f"{qube}:{name}" for name in _lines(qube, "admin.vm.volume.List")]


def _devices(before: Sequence[str], _current: str) -> list[str]:
    """BACKEND:PORT of a class, which is part of the command's name or a word."""
    classes = _lines(ADMIN_QUBE, "admin.deviceclass.List")
    named = (before[0].rpartition("qvm-")[2], *before[1:])
    wanted = next((word for word in named if word in classes), None)
    found = []
    for one in _listed() if wanted else ():
        try:
            lines = _lines(one.name, f"admin.vm.device.{wanted}.Available")
        except QubesException:
            continue
        found += [f"{one.name}:{line.partition(':')[0]}" for line in lines]
    return found


def _run_words(before: Sequence[str], current: str) -> list[str]:
    """qvm-run: a qube's name, unless it is said otherwise where to run; then the command."""
    elsewhere = any(word == "--all" or word.startswith("--dispvm") for word in before)
    return [] if elsewhere or _named(before) else _qubes(before, current)


_KINDS: dict[str, Callable[[Sequence[str], str], Iterable[str]]] = {
    "qubes": _qubes,
    "templates": _templates,
    "properties": _properties,
    "system-properties": _of_system("admin.property.List"),
    "values": _values,
    "features": _of_qube("admin.vm.feature.List", where_none=True),
    "services": _services,
    "tags": _of_qube("admin.vm.tag.List", where_none=True),
    "labels": _of_system("admin.label.List"),
    "classes": _of_system("admin.vmclass.List"),
    "pools": _of_system("admin.pool.List"),
    "drivers": _drivers,
    "volumes": _volumes,
    "columns": _columns,
    "device-classes": _of_system("admin.deviceclass.List"),
    "devices": _devices,
    "run-words": _run_words,
}
