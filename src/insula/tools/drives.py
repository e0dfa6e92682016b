"""A disk or CD that a qube has for one start (qvm-tools.md section 4.1)."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from insula.client import instance
from insula.client.app import App, Qube
from insula.protocol.admin import ADMIN_QUBE
from insula.protocol.devices import DeviceName
from insula.protocol.errors import ReportableError
from insula.tools.command import UsageError
from insula.tools.device_lists import Assignment, available, change, give

_CLASS = "block"
_TYPES = {"cdrom": ("cdrom", "True"), "hd": ("disk", "False")}  # devtype and read-only
_LOOP = re.compile(r"/dev/(loop[0-9]{1,7})", re.ASCII)
_LOOP_TIMEOUT = 10.0  # seconds until its backend shows a new loop device
_POLL = 0.1
_MAX_OUTPUT = 4096


class Drive(NamedTuple):
    """What to attach. what: a device of the backend, or the absolute path of a file there."""

    kind: str
    backend: str
    what: str


def parse_drive(text: str) -> Drive:
    """Read [cdrom:|hd:]QUBE:DEVICE, or with an absolute path for the device.

    Raises:
        UsageError: it is not of that form.
    """
    first, colon, rest = text.partition(":")
    kind, rest = (first, rest) if colon and first in _TYPES else ("cdrom", text)
    backend, colon, what = rest.partition(":")
    if not colon or not backend or not what:
        raise UsageError(f"{text!r} is not of the form [cdrom:|hd:]QUBE:DEVICE")
    return Drive(kind, backend, what)


@contextmanager
def assigned_drive(app: App, drive: Drive, qubes: Sequence[Qube]) -> Iterator[None]:
    """Have the drive assigned to qubes for the length of the block, in which they are started.

    Raises:
        ReportableError: it is not there, or the daemon refuses.
    """
    if drive.backend not in app.domains:
        raise ReportableError(f"no such qube: {drive.backend!r}")
    backend = app.domains[drive.backend]
    devtype, read_only = _TYPES[drive.kind]
    options = {"devtype": devtype, "read-only": read_only}
    given: list[Qube] = []
    with _port(backend, drive) as (port, timeout):
        name = _await_device(backend, port, timeout)
        try:
            for qube in qubes:
                give(qube, _CLASS, "Assign", Assignment(name, qube.name, "required", options))
                given.append(qube)
            yield
        finally:
            for qube in given:
                change(qube, _CLASS, "Unassign", name)


@contextmanager
def _port(backend: Qube, drive: Drive) -> Iterator[tuple[str, float]]:
    """The port of the drive, and how long its device may take to show up there."""
    if not drive.what.startswith("/"):
        yield drive.what, 0.0
        return
    port = _loop_device(backend, drive.what, read_only=drive.kind == "cdrom")
    try:
        yield port, _LOOP_TIMEOUT
    finally:
        # One that is in use stays until it is not.
        _run_as_root(backend, ["losetup", "-d", f"/dev/{port}"])


def _await_device(backend: Qube, port: str, timeout: float) -> DeviceName:
    """The device in a port, once its backend shows it."""
    deadline = time.monotonic() + timeout
    while True:
        for device in available(backend, _CLASS):
            if device.name.port == port:
                return device.name
        if time.monotonic() >= deadline:
            raise ReportableError(f"{backend} shows no block device {port}")
        time.sleep(_POLL)


def _loop_device(backend: Qube, path: str, *, read_only: bool) -> str:
    """Make a loop device of a file; the port's id of it."""
    words = ["losetup", "-f", "--show", *(["--read-only"] if read_only else []), path]
    code, said = _run_as_root(backend, words)
    found = _LOOP.fullmatch(said.strip())
    if code or found is None:
        raise ReportableError(f"{path} in {backend} cannot be made a disk (status {code})")
    return found.group(1)


def _run_as_root(backend: Qube, words: Sequence[str]) -> tuple[int, str]:
    """A program's exit code and output, where the file lies."""
    if instance.in_qube():
        raise ReportableError("only in dom0 can a file be made a drive")
    if backend.name == ADMIN_QUBE:
        return _run_here(words)
    from insula.client.services import run_service  # noqa: PLC0415 - rarely wanted

    script = f"{shlex.join(words)}; exit\n".encode()
    done = run_service(backend.name, "qubes.VMShell", script, user="root", limit=_MAX_OUTPUT)
    return done.code, done.text


def _run_here(words: Sequence[str]) -> tuple[int, str]:
    command = [*words] if os.geteuid() == 0 else ["sudo", *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ReportableError(f"{error.filename} is not there to make a disk of a file") from None
    return done.returncode, done.stdout
