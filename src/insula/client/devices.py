"""Devices of a qube as objects, by their classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from insula.client.errors import NotThereError, QubesDaemonCommunicationError, QubesValueError
from insula.protocol.devices import (
    UNKNOWN_INTERFACE,
    DeviceName,
    parse_serialised,
    read_available,
    serialise,
)
from insula.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from insula.client.qube import Qube

_ASSIGNED, _ATTACHED = "Assigned", "Attached"
_SHOWN = ("device_id", "port_id", "devclass", "backend_domain", "attachment", "interfaces", "mode")


@dataclass(frozen=True, slots=True)
class Device:
    """A device as its backend shows it.

    attachment: the qube that has it. interfaces: its codes, one behind the other. described:
    vendor, product and whatever else is told of it; a qube may have made it up.
    """

    name: DeviceName
    interfaces: str
    attachment: str | None = None
    described: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A device that is to be, or is, a qube's."""

    name: DeviceName
    mode: str
    options: Mapping[str, str] = field(default_factory=dict)


Named = DeviceName | Device | Assignment | str


def device_name(device: Named) -> DeviceName:
    """What a device is called.

    Raises:
        QubesValueError: the text is not BACKEND:PORT or BACKEND:PORT:ID.
    """
    if isinstance(device, DeviceName):
        return device
    if not isinstance(device, str):
        return device.name
    backend, _, rest = device.partition(":")
    port, colon, device_id = rest.partition(":")
    if not backend or not port or (colon and not device_id):
        raise QubesValueError(f"not BACKEND:PORT or BACKEND:PORT:ID: {device!r}")
    return DeviceName(backend, port, device_id or None)


class DevicesOfClass:
    """The devices of one class that a qube shows, is assigned, or has.

    A device is named as itself, as its name, or as text: BACKEND:PORT or BACKEND:PORT:ID.
    """

    def __init__(self, qube: "Qube", devclass: str) -> None:
        self._qube = qube
        self._devclass = devclass
        self._cache: dict[str, list[Assignment]] = {}  # with a cache: what was answered

    def available(self) -> list[Device]:
        """What the qube shows for others to use."""
        return [
            Device(
                name,
                items.get("interfaces", UNKNOWN_INTERFACE),
                items.get("attachment"),
                {key.removeprefix("_"): one for key, one in items.items() if key not in _SHOWN},
            )
            for name, items in filter(None, map(self._read, self._content("Available").split("\n")))
        ]

    def assigned(self) -> list[Assignment]:
        """What is to be the qube's."""
        return self._assignments(_ASSIGNED)

    def attached(self) -> list[Assignment]:
        """What the qube has now."""
        return self._assignments(_ATTACHED)

    def assign(self, device: Named, mode: str = "auto-attach", **options: object) -> None:
        """Let a device be the qube's from now on. mode: auto-attach, ask-to-attach or required.

        In the names of options "_" stands for "-"; a boolean is yes or no.

        Raises:
            DeviceAlreadyAssigned: it is assigned already.
            QubesValueError: an option is not acceptable.
        """
        self._call("Assign", device, serialise([("mode", mode), *_options(options)]))
        self.forget_assigned()

    def unassign(self, device: Named) -> None:
        """Let a device be the qube's no more.

        Raises:
            DeviceNotAssigned: it is not, or is under another name.
        """
        self._call("Unassign", device)
        self.forget_assigned()

    def set_mode(self, device: Named, mode: str) -> None:
        """Change how an assigned device comes to be the qube's.

        Raises:
            QubesValueError: it is not assigned.
        """
        self._call("Set.assignment", device, mode)
        self.forget_assigned()

    def attach(self, device: Named, **options: object) -> None:
        """Give a device to the running qube until it ends. Options: as of assign.

        Raises:
            QubesVMNotRunningError: the qube is down.
            DeviceAlreadyAttached: some qube has it.
            QubesDaemonAccessError: there is no such device.
        """
        self._call("Attach", device, serialise([("mode", "manual"), *_options(options)]))
        self.forget_attached()

    def detach(self, device: Named) -> None:
        """Take a device away from the running qube.

        Raises:
            DeviceNotAssigned: the qube does not have it.
            QubesVMNotHaltedError: it is required.
        """
        self._call("Detach", device)
        self.forget_attached()

    def forget_assigned(self) -> None:
        """Drop the cached list of what is assigned."""
        self._cache.pop(_ASSIGNED, None)

    def forget_attached(self) -> None:
        """Drop the cached list of what is attached."""
        self._cache.pop(_ATTACHED, None)

    def _assignments(self, kind: str) -> list[Assignment]:
        if kind in self._cache:
            return self._cache[kind]
        found = self._read_assignments(kind)
        if self._qube.app.cached:
            self._cache[kind] = found
        return found

    def _read_assignments(self, kind: str) -> list[Assignment]:
        return [
            Assignment(
                DeviceName(items["backend_domain"], items["port_id"], items["device_id"]),
                items.get("mode", "manual"),
                {key[1:]: value for key, value in items.items() if key.startswith("_")},
            )
            for items in self._lines(kind)
        ]

    def _lines(self, kind: str) -> list[dict[str, str]]:
        lines = self._content(kind).split("\n")
        try:
            return [parse_serialised(line.partition(" ")[2]) for line in lines if line]
        except ProtocolError as error:
            raise QubesDaemonCommunicationError(f"devices of {self._qube}: {error}") from None

    def _read(self, line: str) -> tuple[DeviceName, dict[str, str]] | None:
        return read_available(line, str(self._qube), self._devclass)

    def _content(self, kind: str) -> str:
        method = f"admin.vm.device.{self._devclass}.{kind}"
        return self._qube.call(method).decode("ascii", "replace")

    def _call(self, kind: str, device: Named, payload: str = "") -> None:
        method = f"admin.vm.device.{self._devclass}.{kind}"
        self._qube.call(method, device_name(device).argument(), payload.encode("ascii"))


class Devices(Mapping[str, DevicesOfClass]):
    """A qube's devices by their classes."""

    def __init__(self, qube: "Qube") -> None:
        self._qube = qube
        self._known: dict[str, DevicesOfClass] = {}

    def __getitem__(self, devclass: str) -> DevicesOfClass:
        if devclass not in self._known:
            if devclass not in self._qube.app.device_classes():
                raise NotThereError(f"no such class of devices: {devclass!r}")
            self._known[devclass] = DevicesOfClass(self._qube, devclass)
        return self._known[devclass]

    def __iter__(self) -> Iterator[str]:
        return iter(self._qube.app.device_classes())

    def __len__(self) -> int:
        return len(self._qube.app.device_classes())

    @property
    def denied(self) -> list[str]:
        """Codes of the interfaces whose devices are not attached by hand."""
        return self._qube.call("admin.vm.device.denied.List").decode().split()

    def deny(self, *codes: str) -> None:
        """Attach no devices by hand any more that have one of these interfaces.

        Raises:
            QubesValueError: one is no code of an interface.
        """
        self._qube.call("admin.vm.device.denied.Add", payload="".join(codes).encode())

    def allow(self, *codes: str) -> None:
        """Take back what was denied; "all" takes back all."""
        self._qube.call("admin.vm.device.denied.Remove", payload="".join(codes).encode())

    def forget_assigned(self, devclass: str) -> None:
        """Drop the cached assignments of a class."""
        if devclass in self._known:
            self._known[devclass].forget_assigned()

    def forget_attached(self, devclass: str) -> None:
        """Drop the cached attachments of a class."""
        if devclass in self._known:
            self._known[devclass].forget_attached()


def _options(options: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(f"_{name.replace('_', '-')}", _text(value)) for name, value in options.items()]


def _text(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
