"""What a class of devices has to be able to do, and what is refused of its options."""

from collections.abc import Mapping
from typing import Protocol

from insula.protocol.devices import DeviceInfo

_TRUE, _FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off")
_KINDS = ("disk", "cdrom")
_NODES = ("xvd", "sd")
_OPTIONS = {
    "block": ("frontend-dev", "read-only", "devtype"),
    "pci": ("no-strict-reset", "permissive"),
}


class OptionError(ValueError):
    """An option that devices of a class do not have, or not with that value."""


class Driver(Protocol):
    """One class of devices."""

    devclass: str

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


def _value(name: str, value: str) -> str:
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
