"""Classes of devices that are shown as they are reported, and cannot be given to qubes yet."""

from collections.abc import Callable, Mapping
from pathlib import Path

from insula.daemon.devices.host_block import host_disks
from insula.protocol.devices import DeviceInfo
from insula.protocol.errors import ReportableError
from insula.protocol.reported import block_devices, usb_devices

HOST = "dom0"
# What a running qube wrote to its QubesDB, by the qube's name.
Written = Callable[[str], Mapping[str, str]]
_MICROPHONE = DeviceInfo(
    devclass="mic",
    backend=HOST,
    port="mic",
    device_id="dom0:mic::m000000",
    interfaces="m000000",
    described={"name": "microphone"},
)


class NotGivenError(ReportableError):
    """A device cannot be given to a qube."""

    def __init__(self, device: DeviceInfo, frontend: str, why: str) -> None:
        super().__init__(f"{device.name} cannot be given to {frontend}: {why}")
        self.hint = "It can be listed and assigned; a qube that requires it does not start"


class ShownDriver:
    """A class whose devices can be seen and no more."""

    devclass: str
    gives = False
    why: str

    async def attach(self, frontend: str, device: DeviceInfo, options: Mapping[str, str]) -> None:
        del options
        raise NotGivenError(device, frontend, self.why)

    async def detach(self, frontend: str, device: DeviceInfo) -> None:
        raise NotGivenError(device, frontend, self.why)


class BlockDriver(ShownDriver):
    """Disks of the host, and those that qubes report."""

    devclass = "block"
    why = "disks are not passed on to qubes"

    def __init__(
        self, written: Written, sys: Path = Path("/sys"), proc: Path = Path("/proc")
    ) -> None:
        self._written, self._sys, self._proc = written, sys, proc

    def available(self, backend: str) -> list[DeviceInfo]:
        if backend == HOST:
            return host_disks(self._sys, self._proc)
        return block_devices(backend, self._written(backend))


class UsbDriver(ShownDriver):
    """USB devices that qubes report."""

    devclass = "usb"
    why = "USB devices are not passed on to qubes"

    def __init__(self, written: Written) -> None:
        self._written = written

    def available(self, backend: str) -> list[DeviceInfo]:
        return [] if backend == HOST else usb_devices(backend, self._written(backend))


class MicDriver(ShownDriver):
    """The microphone, of which there is one."""

    devclass = "mic"
    why = "no audio qube passes the microphone on"

    def available(self, backend: str) -> list[DeviceInfo]:
        return [_MICROPHONE] if backend == HOST else []
