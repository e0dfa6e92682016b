"""Insula's Admin API for Python programs.

    from insula.client import App

    app = App()
    app.domains["work"].start()

docs/client.md shows the whole of it. Names are loaded when they are first used, so that a command
does not pay for what it does not need.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from insula.client import errors
    from insula.client.app import App
    from insula.client.devices import Assignment, Device
    from insula.client.errors import (
        DaemonNotRunningError,
        QubesDaemonAccessError,
        QubesDaemonCommunicationError,
        QubesException,
        ServiceFailedError,
    )
    from insula.client.events import Statistics
    from insula.client.firewall import Firewall
    from insula.client.labels import Label
    from insula.client.pools import Pool
    from insula.client.qube import Qube
    from insula.client.services import Completed, run_service
    from insula.client.volumes import Volume
    from insula.protocol.admin import Event
    from insula.protocol.devices import DeviceName
    from insula.protocol.firewall import Rule

__all__ = [
    "App",
    "Assignment",
    "Completed",
    "DaemonNotRunningError",
    "Device",
    "DeviceName",
    "Event",
    "Firewall",
    "Label",
    "Pool",
    "Qube",
    "QubesDaemonAccessError",
    "QubesDaemonCommunicationError",
    "QubesException",
    "Rule",
    "ServiceFailedError",
    "Statistics",
    "Volume",
    "errors",
    "run_service",
]
_MODULES = {
    "App": "insula.client.app",
    "Assignment": "insula.client.devices",
    "Completed": "insula.client.services",
    "DaemonNotRunningError": "insula.client.errors",
    "Device": "insula.client.devices",
    "DeviceName": "insula.protocol.devices",
    "Event": "insula.protocol.admin",
    "Firewall": "insula.client.firewall",
    "Label": "insula.client.labels",
    "Pool": "insula.client.pools",
    "Qube": "insula.client.qube",
    "QubesDaemonAccessError": "insula.client.errors",
    "QubesDaemonCommunicationError": "insula.client.errors",
    "QubesException": "insula.client.errors",
    "Rule": "insula.protocol.firewall",
    "ServiceFailedError": "insula.client.errors",
    "Statistics": "insula.client.events",
    "Volume": "insula.client.volumes",
    "errors": "insula.client.errors",
    "run_service": "insula.client.services",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"insula.client has no {name!r}")
    from importlib import import_module  # noqa: PLC0415 - commands do without

    module = import_module(_MODULES[name])
    return module if name == "errors" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
