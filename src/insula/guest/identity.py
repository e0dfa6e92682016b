"""Becoming a qube: everything between knowing who it is and being ready (in-qube.md 2.2)."""

import os
import re
import socket
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

from insula.guest import bind_dirs, private

_RUN = Path("/run/qubes")
_SERVICES = Path("/run/qubes-service")
_BOOTED = Path("/run/insula/booted")
_BOOT_TIMEOUT = 240.0
_SCRIPT_TIMEOUT = 300
_SERVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TYPES = {
    "TemplateVM": "this-is-templatevm",
    "NetVM": "this-is-netvm",
    "ProxyVM": "this-is-proxyvm",
}


def become(qubesdb: dict[str, str]) -> list[str]:
    """Set the qube up; returns what went wrong without keeping it from running.

    Raises:
        OSError, PrivateVolumeError: the private volume cannot be used.
    """
    report: list[str] = []
    persistence = qubesdb.get("/qubes-vm-persistence", "rw-only")
    _markers(qubesdb, persistence)
    _new_machine_id()
    private.set_up(journal=persistence != "none")
    if persistence != "full":
        bind_dirs.apply(report)
    _scripts(("/rw/config/rc.local-early.d", "/rw/config/rc.local-early"), report)
    _host_name(qubesdb.get("/name", ""))
    _time_zone(qubesdb.get("/qubes-timezone", ""))
    _keyboard(qubesdb.get("/keyboard-layout", ""))
    _scripts(("/rw/config/rc.local.d", "/rw/config/rc.local"), report)
    return report


def wait_until_booted() -> None:
    """Let a cold boot come to its end before the qube is used or parked.

    Raises:
        TimeoutError: it did not.
    """
    deadline = time.monotonic() + _BOOT_TIMEOUT
    while not _BOOTED.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the boot did not come to its end")
        time.sleep(0.1)


def _markers(qubesdb: dict[str, str], persistence: str) -> None:
    _RUN.mkdir(parents=True, exist_ok=True)
    kind = _TYPES.get(qubesdb.get("/qubes-vm-type", ""), "this-is-appvm")
    for marker in (kind, f"persistent-{persistence}"):
        (_RUN / marker).touch()
    _SERVICES.mkdir(exist_ok=True)
    for key, value in qubesdb.items():
        name = key.removeprefix("/qubes-service/")
        if name == key or _SERVICE_NAME.fullmatch(name) is None:
            continue
        if value == "1":
            (_SERVICES / name).touch()
        else:
            (_SERVICES / name).unlink(missing_ok=True)
    Path("/run/qubes-service-environment").touch()


def _new_machine_id() -> None:
    Path("/etc/machine-id").write_text(uuid.UUID(bytes=os.urandom(16), version=4).hex + "\n")


def _host_name(name: str) -> None:
    if not name:
        return
    socket.sethostname(name)
    if not _protected("/etc/hostname"):
        Path("/etc/hostname").write_text(name + "\n")
    hosts = Path("/etc/hosts")
    lines = hosts.read_text().splitlines() if hosts.exists() else []
    kept = [line for line in lines if not line.startswith("127.0.1.1")]
    hosts.write_text("\n".join([*kept, f"127.0.1.1 {name}", ""]))


def _time_zone(name: str) -> None:
    zone = Path("/usr/share/zoneinfo", name)
    if name and ".." not in name and zone.is_file() and not _protected("/etc/timezone"):
        link = Path("/etc/localtime")
        link.unlink(missing_ok=True)
        link.symlink_to(zone)
        Path("/etc/timezone").write_text(name + "\n")


def _keyboard(layout: str) -> None:
    if layout:
        (_RUN / "keyboard-layout").write_text(layout)


def _protected(path: str) -> bool:
    for directory in ("/etc/qubes/protected-files.d", "/rw/config/protected-files.d"):
        for file in sorted(Path(directory).glob("*")):
            with suppress(OSError, ValueError):
                if path in file.read_text().splitlines():
                    return True
    return False


def _scripts(paths: tuple[str, str], report: list[str]) -> None:
    """Run DIRECTORY/*.rc and then FILE, those that are executable."""
    directory, file = paths
    for script in (*sorted(Path(directory).glob("*.rc")), Path(file)):
        if not (script.is_file() and os.access(script, os.X_OK)) or _is_comment(script):
            continue
        try:
            subprocess.run([script], stdin=subprocess.DEVNULL, timeout=_SCRIPT_TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            report.append(f"{script}: {error}")


def _is_comment(script: Path) -> bool:
    """Whether a script does nothing, as the one that every private volume begins with."""
    with suppress(OSError, UnicodeDecodeError):
        lines = script.read_text().splitlines()
        return all(not line.strip() or line.lstrip().startswith("#") for line in lines)
    return False
