"""Becoming a qube: everything between knowing who it is and being ready (in-qube.md 2.2)."""

import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from insula.guest import bind_dirs, private, root, toggles
from insula.guest.firewall import tables
from insula.guest.parking import MACHINE_ID, Parked
from insula.guest.protected import protected_files
from insula.guest.scripts import Scripts
from insula.protocol.control import Identity

_RUN = Path("/run/qubes")
_BOOTED = Path("/run/insula/booted")
_BOOT_TIMEOUT = 240.0
_WINDOWS = Path("/run/qubes/gui-agent.status")  # there from its start on, gone with its end
_WINDOWS_TIMEOUT = 60.0
_LONGEST = 1 << 20  # bytes of a file in /etc that is changed
_TYPES = {
    "TemplateVM": "this-is-templatevm",
    "NetVM": "this-is-netvm",
    "ProxyVM": "this-is-proxyvm",
}


def become(who: Identity, parked: Parked | None, let_others_run: Callable[[], None]) -> list[str]:
    """Set the qube up; returns what went wrong without keeping it from running.

    let_others_run: what has to be called before a program that may need them.

    Raises:
        OSError, PrivateVolumeError: the private volume cannot be used.
    """
    report: list[str] = []
    qubesdb = who.qubesdb
    persistence = qubesdb.get("/qubes-vm-persistence", "rw-only")
    services = toggles.switched_on(qubesdb)
    toggles.mark(services)
    _markers(qubesdb, persistence)
    _new_ids(parked, persistence)
    if parked is None:
        root.grow(report)
    private.set_up(journal=persistence != "none", size=who.sizes.get("private", 0))
    if persistence != "full":
        bind_dirs.apply(report)
    run = Scripts(report, let_others_run)
    run.all_of("/rw/config/rc.local-early.d", "/rw/config/rc.local-early")
    protected = protected_files()
    _host_name(qubesdb.get("/name", ""), protected)
    _time_zone(qubesdb.get("/qubes-timezone", ""), protected)
    _keyboard(qubesdb.get("/keyboard-layout", ""))
    if "/qubes-netvm-network" in qubesdb and "qubes-firewall" not in services:
        let_others_run()
        _enforce_no_rules(report)
    if toggles.waited_for(services):
        let_others_run()
        toggles.start_units(report)
    run.all_of("/rw/config/rc.local.d", "/rw/config/rc.local")
    return report


def _enforce_no_rules(report: list[str]) -> None:
    """Open what is closed to clients until a program says which may pass: there will be none."""
    try:
        tables.none_enforced()
    except tables.NotAppliedError as error:
        report.append(f"clients reach nothing: {error}")


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


def wait_for_windows() -> None:
    """Let the window agent come to serve, where there is to be one: clones could not start it.

    Raises:
        TimeoutError: it did not.
    """
    if "insula.gui=0" in Path("/proc/cmdline").read_text().split():
        return
    deadline = time.monotonic() + _WINDOWS_TIMEOUT
    while not _serves_windows():
        if time.monotonic() > deadline:
            raise TimeoutError("the window agent does not serve")
        time.sleep(0.1)


def _serves_windows() -> bool:
    with suppress(FileNotFoundError):
        return _WINDOWS.read_text() != "starting\n"
    return False


def rehearse() -> None:
    """Look at what a start looks at, and change nothing: then clones have it in memory."""
    _host_name(socket.gethostname(), protected_files())
    bind_dirs.apply([])


def _markers(qubesdb: dict[str, str], persistence: str) -> None:
    _RUN.mkdir(parents=True, exist_ok=True)
    kind = _TYPES.get(qubesdb.get("/qubes-vm-type", ""), "this-is-appvm")
    for marker in (f"{_RUN}/{kind}", f"{_RUN}/persistent-{persistence}"):
        _touch(marker)
    _touch("/run/qubes-service-environment")


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _new_ids(parked: Parked | None, persistence: str) -> None:
    """Identify machine and boot anew; a qube with a root of its own keeps what it has there."""
    machine_id = uuid.UUID(bytes=os.urandom(16), version=4).hex.encode() + b"\n"
    if parked is not None:
        os.pwrite(parked.machine_id, machine_id, 0)
        os.pwrite(parked.boot_id, str(uuid.uuid4()).encode() + b"\n", 0)
    elif persistence != "full" or not MACHINE_ID.read_bytes().strip():
        MACHINE_ID.write_bytes(machine_id)


def _host_name(name: str, protected: set[str]) -> None:
    if not name:
        return
    socket.sethostname(name)
    if "/etc/hostname" not in protected:
        _rewrite("/etc/hostname", lambda _old: f"{name}\n")
    _rewrite("/etc/hosts", lambda old: _named_hosts(old, name))


def _named_hosts(hosts: str, name: str) -> str:
    """A hosts file in which this machine has a name: the last on lines of its own addresses."""
    lines, found = [], False
    for line in hosts.splitlines():
        words = line.split()
        if words and words[0] in ("127.0.1.1", "::1"):
            found |= words[0] == "127.0.1.1"
            known = words[1:-1] if words[-1] != "localhost" else words[1:]
            lines.append(" ".join((words[0], *known, name)))
        else:
            lines.append(line)
    if not found:
        lines.append(f"127.0.1.1 {name}")
    return "\n".join((*lines, ""))


def _rewrite(path: str, change: Callable[[str], str]) -> None:
    """Change a file's text in place; most starts find it as it should be."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        old = os.read(descriptor, _LONGEST)
        new = change(old.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        if new != old:
            os.pwrite(descriptor, new, 0)
            if len(new) < len(old):
                os.ftruncate(descriptor, len(new))
    finally:
        os.close(descriptor)


def _time_zone(name: str, protected: set[str]) -> None:
    zone, link = f"/usr/share/zoneinfo/{name}", "/etc/localtime"
    if not name or ".." in name or "/etc/timezone" in protected or not os.path.isfile(zone):  # noqa: PTH113
        return
    with suppress(OSError):
        if os.readlink(link).endswith(f"/zoneinfo/{name}"):  # noqa: PTH115
            return
    with suppress(FileNotFoundError):
        os.unlink(link)  # noqa: PTH108
    os.symlink(zone, link)  # noqa: PTH211
    _rewrite("/etc/timezone", lambda _old: f"{name}\n")


def _keyboard(layout: str) -> None:
    if layout:
        (_RUN / "keyboard-layout").write_text(layout)
