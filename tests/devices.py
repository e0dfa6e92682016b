"""Devices that are there when a test says so."""

import asyncio
from collections.abc import Mapping

from insula.protocol.devices import DeviceInfo
from insula.protocol.errors import ReportableError


class FakeDriver:
    """A class of devices. shown: what backends show, by their names; broken: it can give none."""

    def __init__(self, devclass: str) -> None:
        self.devclass = devclass
        self.gives = True
        self.shown: dict[str, list[DeviceInfo]] = {}
        self.broken = False
        self.given: list[tuple[str, str, dict[str, str]]] = []

    def available(self, backend: str) -> list[DeviceInfo]:
        return self.shown.get(backend, [])

    async def attach(self, frontend: str, device: DeviceInfo, options: Mapping[str, str]) -> None:
        await asyncio.sleep(0)  # Others have their turn meanwhile, as with real ones.
        if self.broken:
            raise ReportableError("it does not let go")
        self.given.append((frontend, str(device.name), dict(options)))

    async def detach(self, frontend: str, device: DeviceInfo) -> None:
        if self.broken:
            raise ReportableError("it does not let go")
        self.given = [one for one in self.given if one[:2] != (frontend, str(device.name))]
