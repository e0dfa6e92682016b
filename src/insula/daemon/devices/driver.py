"""What a class of devices has to be able to do, and what is refused of its options."""

import string
from collections.abc import Collection, Mapping
from typing import Protocol

from insula.protocol.devices import UNREADABLE_ENDS, DeviceInfo

_TRUE, _FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off")
_KINDS = ("disk", "cdrom")
_NODES = ("xvd", "sd")
_LETTERS = string.ascii_lowercase
# In this order: xvdi to xvdz, xvdaa to xvdzz, xvda to xvdh.
_NODES_IN_ORDER = (
    *(f"xvd{letter}" for letter in _LETTERS[8:]),
    *(f"xvd{one}{other}" for one in _LETTERS for other in _LETTERS),
    *(f"xvd{letter}" for letter in _LETTERS[:8]),
)
_OPTIONS = {
    "block": ("frontend-dev", "read-only", "devtype"),
    "pci": ("no-strict-reset", "permissive"),
}


class OptionError(ValueError):
    """An option that devices of a class do not have, or not with that value."""


class Driver(Protocol):
    """One class of devices. gives: whether qubes can be given any of them."""

    devclass: str
    gives: bool

    def available(self, backend: str) -> list[DeviceInfo]:
        """Devices that a running qube shows, by its name; it must not wait for anything."""
        ...

    async def attach(self, frontend: str, device: DeviceInfo, options: Mapping[str, str]) -> None:
        """Give a device to a running qube.

        Raises:
            ReportableError: it cannot be; nothing of it is left.
        """
        ...

    async def detach(self, frontend: str, device: DeviceInfo) -> None:
        """Take a device away from a running qube.

        Raises:
            ReportableError: it cannot be.
        """
        ...


def checked(devclass: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options of a device as they are kept.

    Raises:
        OptionError: the class has no such option, or not with such a value.
    """
    known = _OPTIONS.get(devclass, ())
    found: dict[str, str] = {}
    for name, value in options.items():
        if name not in known:
            raise OptionError(f"devices of class {devclass} have no option {name!r}")
        found[name] = _value(name, value)
    return found


def settled(
    device: DeviceInfo, options: Mapping[str, str], taken: Collection[str]
) -> dict[str, str]:
    """Options of a device as it is attached with them, those left open filled in.

    taken: nodes of block devices that the qube has already.

    Raises:
        OptionError: the device cannot be attached so.
    """
    if device.devclass != "block":
        return dict(options)
    locked = (device.data or {}).get("mode") == "r"
    read_only = options.get("read-only", "yes" if locked else "no")
    if locked and read_only == "no":
        raise OptionError(f"{device.name} is read-only and cannot be attached writable")
    node = options.get("frontend-dev")
    if node is None:
        node = _free_node(taken, cdrom=options.get("devtype") == "cdrom")
    elif node in taken:
        raise OptionError(f"{node} is taken; leave frontend-dev out, and a free one is found")
    return {**options, "frontend-dev": node, "read-only": read_only}


def _free_node(taken: Collection[str], *, cdrom: bool) -> str:
    first = ["xvdd"] if cdrom else []
    for node in (*first, *_NODES_IN_ORDER):
        if node not in taken:
            return node
    raise OptionError("the qube has no node left for another block device")


def _value(name: str, value: str) -> str:
    if value.endswith(UNREADABLE_ENDS):
        raise OptionError(f"{name} cannot be {value!r}")
    match name:
        case "read-only":
            if value.lower() in _TRUE:
                return "yes"
            if value.lower() in _FALSE:
                return "no"
            raise OptionError(f"read-only is yes or no, not {value!r}")
        case "devtype" if value not in _KINDS:
            raise OptionError(f"devtype is {' or '.join(_KINDS)}, not {value!r}")
        case "frontend-dev" if not value.startswith(_NODES):
            raise OptionError(f"frontend-dev begins with {' or '.join(_NODES)}, not {value!r}")
    return value
