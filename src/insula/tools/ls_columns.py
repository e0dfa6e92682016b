"""Columns and formats of qvm-ls (qvm-tools.md section 3.4)."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from insula.client import errors
from insula.client.app import App, Qube

FORMATS = {
    "simple": ("NAME", "STATE", "CLASS", "LABEL", "TEMPLATE", "NETVM"),
    "network": ("NAME", "STATE", "NETVM", "IP", "IPBACK", "GATEWAY"),
    "kernel": ("NAME", "STATE", "CLASS", "TEMPLATE", "KERNEL", "KERNELOPTS"),
    "full": ("NAME", "STATE", "CLASS", "LABEL", "QID", "XID", "UUID"),
    "prefs": ("NAME", "LABEL", "TEMPLATE", "NETVM", "VCPUS", "INITIALMEM", "MAXMEM", "VIRT-MODE"),
    "disk": (
        "NAME", "STATE", "DISK", "PRIV-CURR", "PRIV-MAX", "PRIV-USED",
        "ROOT-CURR", "ROOT-MAX", "ROOT-USED",
    ),
}  # fmt: skip
NUMERIC = frozenset(
    (
        "MEMORY", "DISK", "PRIV-CURR", "PRIV-MAX", "PRIV-USED", "ROOT-CURR", "ROOT-MAX",
        "ROOT-USED", "XID", "MAXMEM", "VCPUS", "QREXEC-TIMEOUT", "SHUTDOWN-TIMEOUT",
    )
)  # fmt: skip
MISSING = "-"
_MIB = 1 << 20
_asked: "WeakKeyDictionary[App, dict[str, dict[str, dict[str, str]]]]" = WeakKeyDictionary()
_NEVER_KNOWN = ("IPBACK", "INITIALMEM")
_TYPES = {"AdminVM": "0", "AppVM": "a", "DispVM": "d", "StandaloneVM": "s", "TemplateVM": "t"}
_STATES = {
    "Halted": "-", "Running": "r", "Transient": "t", "Paused": "p", "Suspended": "s",
    "Halting": "h", "Dying": "d", "Crashed": "c",
}  # fmt: skip
# Flags 3 to 8. The sixth looks for a property that no qube has, as in Qubes.
_PROPERTY_FLAGS = (
    ("updateable", "U"), ("provides_network", "N"), ("installed_by_rpm", "R"),
    ("internal", "i"), ("debug", "D"), ("autostart", "A"),
)  # fmt: skip


def heading(column: str) -> str:
    """A column's heading, from how somebody writes its name."""
    return column.strip().upper().replace("_", "-")


def cell(qube: Qube, column: str) -> str:
    """What a column shows of a qube; column is a heading."""
    if column in _NEVER_KNOWN:
        return MISSING
    built_in = COLUMNS.get(column)
    if built_in is not None:
        return built_in[0](qube)
    return property_text(qube, column.lower().replace("-", "_")) or MISSING


def property_text(qube: Qube, name: str) -> str:
    """A property as text; empty when there is none, or it has no value."""
    answer = qube.get_all().get(name)
    return answer.value if answer is not None else ""


def for_programs(columns: Sequence[str], row: Sequence[str]) -> dict[str, object]:
    """A row by the names that properties have; numbers as numbers, what is missing as null."""
    found: dict[str, object] = {}
    for column, text in zip(columns, row, strict=True):
        value: object = None if text == MISSING else text
        if column in NUMERIC and value is not None:
            value = number(text)
        found[column.lower().replace("-", "_")] = value
    return found


def number(text: str) -> int:
    """What a cell of a numeric column counts as when rows are sorted."""
    try:
        return int(text.removesuffix("%"))
    except ValueError:
        return 0


def _gateway(qube: Qube) -> str:
    netvm = property_text(qube, "netvm")
    return property_text(qube.app.domains.known(netvm), "gateway") or MISSING if netvm else MISSING


def _memory(qube: Qube) -> str:
    if not qube.is_running():
        return MISSING
    try:
        return str(int(qube.current_state().get("mem", "0")) // 1024)
    except errors.QubesDaemonAccessError:
        return MISSING


def _disk(qube: Qube) -> str:
    return str(sum(int(info["usage"]) for info in _volumes(qube).values()) // _MIB)


def _volume_size(name: str, field: str) -> Callable[[Qube], str]:
    return lambda qube: str(int(_volume(qube, name).get(field, "0")) // _MIB)


def _volume_used(name: str) -> Callable[[Qube], str]:
    def used(qube: Qube) -> str:
        info = _volume(qube, name)
        size = int(info.get("size", "0"))
        return f"{int(info['usage']) * 100 // size}%" if size else MISSING

    return used


def _volume_pool(name: str) -> Callable[[Qube], str]:
    return lambda qube: _volume(qube, name).get("pool", MISSING)


def _volume(qube: Qube, name: str) -> dict[str, str]:
    return _volumes(qube).get(name, {})


def _volumes(qube: Qube) -> dict[str, dict[str, str]]:
    """What is told of each of a qube's volumes, asked once for all columns."""
    of_app = _asked.setdefault(qube.app, {})
    if qube.name not in of_app:
        volumes = qube.volumes
        of_app[qube.name] = {name: volumes.named(name).info() for name in volumes}
    return of_app[qube.name]


def _flags(qube: Qube) -> str:
    kind = _TYPES.get(qube.klass, MISSING)
    if property_text(qube, "virt_mode") == "hvm":
        kind = kind.upper()
    others = (
        flag if property_text(qube, name) == "True" else MISSING for name, flag in _PROPERTY_FLAGS
    )
    return kind + _STATES.get(qube.state, "?") + "".join(others)


# By heading: how to get it, and what it is.
COLUMNS: dict[str, tuple[Callable[[Qube], str], str]] = {
    "NAME": (lambda qube: qube.name, "name of the qube"),
    "STATE": (lambda qube: qube.state, "power state"),
    "CLASS": (lambda qube: qube.klass, "class of the qube"),
    "GATEWAY": (_gateway, "gateway of its net qube"),
    "MEMORY": (_memory, "memory in use, MiB, of running qubes"),
    "DISK": (_disk, "disk space in use by all volumes, MiB"),
    "PRIV-CURR": (_volume_size("private", "usage"), "disk space in use by the private volume, MiB"),
    "PRIV-MAX": (_volume_size("private", "size"), "size of the private volume, MiB"),
    "PRIV-USED": (_volume_used("private"), "part of the private volume in use"),
    "PRIV-POOL": (_volume_pool("private"), "pool of the private volume"),
    "ROOT-CURR": (_volume_size("root", "usage"), "disk space in use by the root volume, MiB"),
    "ROOT-MAX": (_volume_size("root", "size"), "size of the root volume, MiB"),
    "ROOT-USED": (_volume_used("root"), "part of the root volume in use"),
    "ROOT-POOL": (_volume_pool("root"), "pool of the root volume"),
    "FLAGS": (_flags, "type, power, updateable, network, rpm, internal, debug, autostart"),
}
