"""Volumes as a command line names them: VM:VOLUME."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from insula.client import errors
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools.command import UsageError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class NamedVolume:
    """A volume of a qube."""

    qube: Qube
    name: str

    def __str__(self) -> str:
        return f"{self.qube}:{self.name}"

    def call(self, action: str, payload: str = "") -> str:
        """Call admin.vm.volume.ACTION for it."""
        method = f"admin.vm.volume.{action}"
        return self.qube.call(method, self.name, payload.encode()).decode()

    def info(self) -> dict[str, str]:
        """What admin.vm.volume.Info answers."""
        return self.qube.volumes.named(self.name).info()

    def revisions(self) -> list[str]:
        """Former states it can go back to, oldest first."""
        return revisions_of(self.qube, self.name)


def find_volume(text: str) -> NamedVolume:
    """The qube and the volume that VM:VOLUME stands for.

    Raises:
        UsageError: it is not of that form.
        ReportableError: there is no such qube or volume.
    """
    qube_name, colon, name = text.partition(":")
    if not qube_name or not colon or not name or ":" in name:
        raise UsageError(f"{text!r} is not of the form VM:VOLUME")
    app = App()
    try:
        qube = app.domains[qube_name]
    except errors.QubesVMNotFoundError as error:
        raise ReportableError(str(error)) from None
    if name not in qube.volumes:
        raise ReportableError(f"{qube} has no volume {name!r}")
    return NamedVolume(qube, name)


def revisions_of(qube: Qube, name: str) -> list[str]:
    """Former states of a volume, oldest first."""
    listed = qube.call("admin.vm.volume.ListSnapshots", name).decode()
    return [line for line in listed.split("\n") if line]


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file, or standard input.

    Raises:
        ReportableError: it cannot be read.
    """
    if path == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ReportableError(f"{path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        yield file


def size_of(source: BinaryIO) -> int:
    """Bytes that are left of a file or block device.

    Raises:
        UsageError: it is a pipe, of which that cannot be known.
    """
    mode = os.fstat(source.fileno()).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise UsageError("how much data a pipe holds is not known: give --size or --no-resize")
    here = source.tell()
    end = source.seek(0, os.SEEK_END)
    source.seek(here)
    return end - here
