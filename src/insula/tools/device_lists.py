"""Devices as the daemon lists them, for qvm-device. What it tells of them came from backends."""

from dataclasses import dataclass, field

from insula.client.app import Qube
from insula.protocol.devices import (
    ANY,
    UNKNOWN_INTERFACE,
    DeviceName,
    category,
    interfaces_of,
    parse_serialised,
    read_available,
    serialise,
)
from insula.protocol.errors import ProtocolError, ReportableError

_VENDORS, _PRODUCTS = ("vendor", "manufacturer"), ("product", "name", "serial")
_MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a qube shows. fields: everything that is told of it."""

    name: DeviceName
    devclass: str
    fields: dict[str, str]

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Its interface codes."""
        return interfaces_of(self.fields.get("interfaces", UNKNOWN_INTERFACE))

    @property
    def data(self) -> dict[str, str]:
        """What else is known of it."""
        return {key[1:]: one for key, one in self.fields.items() if key.startswith("_")}

    @property
    def description(self) -> str:
        """What it is, for people."""
        kind = category(self.interfaces[0]) if self.interfaces else "Other"
        vendor = self._first(_VENDORS) or "unknown vendor"
        product = self._first(_PRODUCTS) or f"unknown {self.devclass} device"
        return f"{kind}: {vendor} {product}"

    def _first(self, keys: tuple[str, ...]) -> str:
        found = (self.fields[key] for key in keys if self.fields.get(key, "unknown") != "unknown")
        return next(found, "")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A device that is to be a qube's, or is."""

    name: DeviceName
    frontend: str
    mode: str = _MANUAL
    options: dict[str, str] = field(default_factory=dict)


def available(qube: Qube, devclass: str) -> list[Device]:
    """What a qube shows for others to use.

    Raises:
        ReportableError: the daemon refuses.
    """
    content = _content(qube, devclass, "Available")
    read = (read_available(line, qube.name, devclass) for line in content.split("\n"))
    return [Device(name, devclass, fields) for name, fields in filter(None, read)]


def assigned(qube: Qube, devclass: str) -> list[Assignment]:
    """What is to be a qube's."""
    return _assignments(qube, devclass, "Assigned")


def attached(qube: Qube, devclass: str) -> list[Assignment]:
    """What a qube has now."""
    return _assignments(qube, devclass, "Attached")


def _assignments(qube: Qube, devclass: str, kind: str) -> list[Assignment]:
    found = []
    for head, fields in _lines(qube, devclass, kind):
        port, _, device_id = head.partition(":")
        backend, _, port_id = port.partition("+")
        options = {key[1:]: one for key, one in fields.items() if key.startswith("_")}
        name = DeviceName(backend, port_id, device_id or ANY)
        found.append(Assignment(name, qube.name, fields.get("mode", _MANUAL), options))
    return found


def _lines(qube: Qube, devclass: str, kind: str) -> list[tuple[str, dict[str, str]]]:
    found = []
    try:
        for line in _content(qube, devclass, kind).split("\n"):
            head, _, rest = line.partition(" ")
            if head:
                found.append((head, parse_serialised(rest)))
    except ProtocolError as error:
        raise ReportableError(f"devices of {qube} cannot be read: {error}") from None
    return found


def _content(qube: Qube, devclass: str, kind: str) -> str:
    return qube.call(f"admin.vm.device.{devclass}.{kind}").decode("ascii", "replace")


def change(qube: Qube, devclass: str, action: str, device: DeviceName) -> None:
    """Detach or Unassign."""
    qube.call(f"admin.vm.device.{devclass}.{action}", device.argument())


def give(qube: Qube, devclass: str, action: str, assignment: Assignment) -> None:
    """Attach or Assign.

    Raises:
        ReportableError: an option cannot be written, or the daemon refuses.
    """
    name = assignment.name
    items = [
        ("device_id", ANY if name.device_id is None else name.device_id),
        ("port_id", name.port),
        ("devclass", devclass),
        ("backend_domain", name.backend),
        ("mode", assignment.mode),
        ("frontend_domain", qube.name),
        *((f"_{key}", value) for key, value in assignment.options.items()),
    ]
    try:
        payload = serialise(items).encode("ascii")
    except ProtocolError as error:
        raise ReportableError(f"not for a device: {error}") from None
    qube.call(f"admin.vm.device.{devclass}.{action}", name.argument(), payload)
