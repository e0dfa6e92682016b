"""PCI devices of the host, read from sysfs (devices.md section 2)."""

import re
from collections.abc import Mapping
from pathlib import Path

from insula.daemon.devices.pci_names import LISTS, names
from insula.protocol.devices import DeviceInfo
from insula.protocol.errors import ReportableError

DEVICES = Path("/sys/bus/pci/devices")
_ADDRESS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.ASCII)
_ROOT = "0000"  # the segment that a port's id does not name
_HOST = "dom0"


class PciError(ReportableError):
    """A PCI device cannot be passed to a qube."""


class PciDriver:
    """Shows what the host has; a qube can be given none of it yet."""

    devclass = "pci"
    gives = False

    def __init__(self, devices: Path = DEVICES, lists: tuple[Path, ...] = LISTS) -> None:
        self._devices, self._lists = devices, lists

    def available(self, backend: str) -> list[DeviceInfo]:
        if backend != _HOST or not self._devices.is_dir():
            return []
        found = (self._device(entry) for entry in sorted(self._devices.iterdir()))
        return [device for device in found if device is not None]

    async def attach(self, frontend: str, device: DeviceInfo, options: Mapping[str, str]) -> None:
        del options
        error = PciError(f"{device.name} cannot be passed to {frontend}: PCI is not passed through")
        error.hint = "It can only be listed and assigned; a qube that requires it does not start"
        raise error

    async def detach(self, frontend: str, device: DeviceInfo) -> None:
        raise PciError(f"{device.name} is not attached to {frontend}")

    def _device(self, entry: Path) -> DeviceInfo | None:
        port = port_of(entry.resolve())
        try:
            vendor, product, code = (
                (entry / name).read_text("ascii").strip() for name in ("vendor", "device", "class")
            )
        except (OSError, ValueError):
            return None  # It was taken out meanwhile.
        interface = f"p{code.removeprefix('0x'):0>6}"
        if port is None or len(interface) != 7:
            return None
        return DeviceInfo(
            devclass="pci",
            backend=_HOST,
            port=port,
            device_id=f"{vendor}:{product}::{interface}",
            interfaces=interface,
            described=names(vendor, product, self._lists),
            data={"sbdf": entry.name},
        )


def port_of(place: Path) -> str | None:
    """The id of a device's port: its way from the root port through bridges.

    None where the path has no address of a device in it.
    """
    hops: list[str] = []
    segment, first = _ROOT, 0
    for directory in (*reversed(place.parents), place):
        found = _ADDRESS.fullmatch(directory.name)
        if found is None:
            continue
        segment, bus, device, function = found.groups()
        hops.append(f"{max(int(bus, 16) - first, 0):02x}_{device}.{function}")
        first = _secondary_bus(directory)
    if not hops:
        return None
    return ("" if segment == _ROOT else f"{segment}_") + "-".join(hops)


def _secondary_bus(bridge: Path) -> int:
    """The first bus behind a bridge; whatever is no bridge has nothing behind it."""
    try:
        return int((bridge / "secondary_bus_number").read_text())
    except (OSError, ValueError):
        return 0
