"""Where the commands about policies read files and systems from."""

import json
from pathlib import Path
from typing import Any

from insula.client import admin, instance
from insula.protocol.admin import ADMIN_QUBE
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.policy.loading import Places
from insula.protocol.policy.system import SystemInfo
from insula.protocol.policy.trial import system_of
from insula.qrexec.policy_store import instance_places

DEFAULT_LEGACY = "/etc/qubes-rpc/policy"
_INTERNAL_SOCKET = "qubesd.internal.sock"


def places_of(directory: Path | None, legacy: Path | None = None) -> Places:
    """The places of a policy in one directory; those of the instance where none is named."""
    if directory is None:
        return instance_places(instance.home(), instance.run())
    return Places((str(directory.absolute()),), str((legacy or Path(DEFAULT_LEGACY)).absolute()))


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ReportableError: it cannot be read, or is none.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ReportableError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ReportableError(f"{path} is not JSON: {error}") from None


def read_system(path: Path | None) -> tuple[SystemInfo, dict[str, Any]]:
    """A system, and its qubes as they are described: from a file, else the running one.

    A file holds the `system` object of policy cases, or what internal.GetSystemInfo answers.

    Raises:
        ReportableError: it cannot be read, or describes no system.
    """
    if path is None:
        path_told = instance.socket_path(_INTERNAL_SOCKET)
        content = admin.call(ADMIN_QUBE, "internal.GetSystemInfo", socket_name=_INTERNAL_SOCKET)
        described: Any = json.loads(content)
    else:
        path_told, described = str(path), read_json(path)
    try:
        if isinstance(described, dict) and isinstance(described.get("domains"), dict):
            domains = described["domains"]
            return SystemInfo.from_domains(domains), domains
        return system_of(described), described
    except (ProtocolError, AttributeError) as error:
        raise ReportableError(f"{path_told} describes no system: {error}") from None
