"""Services of a qube that are switched on or off: defaults by its role, then what dom0 says.

Source: in-qube.md sections 2.2 and 3. Units are started by the files that this leaves.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress

_DIRECTORY = "/run/qubes-service"
_PREFIX = "/qubes-service/"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TIMEOUT = 20.0  # seconds
_EVERYWHERE = ("qubes-update-check", "meminfo-writer", "software-rendering")
_DESKTOP = (*_EVERYWHERE, "tracker", "evolution-data-server")
_BY_ROLE = {
    "AppVM": _DESKTOP,
    "TemplateVM": (*_DESKTOP, "updates-proxy-setup"),
    "ProxyVM": (*_EVERYWHERE, "qubes-network", "qubes-firewall"),
    "NetVM": (
        *_EVERYWHERE,
        "qubes-network",
        "qubes-firewall",
        "network-manager",
        "qubes-updates-proxy",
    ),
}


def switched_on(qubesdb: Mapping[str, str]) -> set[str]:
    """The services that are on."""
    names = set(_BY_ROLE.get(qubesdb.get("/qubes-vm-type", ""), _DESKTOP))
    for key, value in qubesdb.items():
        name = key.removeprefix(_PREFIX)
        if name != key and _NAME.fullmatch(name) is not None:
            if value == "1":
                names.add(name)
            else:
                names.discard(name)
    return names


def mark(names: set[str]) -> None:
    """Leave a file for each service that is on, and for no other."""
    for name in os.listdir(_DIRECTORY):  # noqa: PTH208 - on every start's path
        if name not in names:
            with suppress(OSError):
                os.unlink(f"{_DIRECTORY}/{name}")  # noqa: PTH108
    for name in names:
        os.close(os.open(f"{_DIRECTORY}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def waited_for(names: set[str]) -> bool:
    """Whether units may wait for one of these: none was on when the machine booted."""
    return not names.issubset(_DESKTOP)


def start_units(report: list[str]) -> None:
    """Start the units whose condition was not met at the boot, and is now; wait for them."""
    try:
        subprocess.run(
            ["/bin/systemctl", "start", "multi-user.target"],
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        report.append(f"units of services: {error}")
