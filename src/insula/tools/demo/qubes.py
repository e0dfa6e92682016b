"""The qubes of the demonstration, made and started by the same commands that a person types."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from insula.client import admin, instance
from insula.client.local_socket import request
from insula.protocol.admin import ListedQube, parse_listed_qubes
from insula.protocol.errors import ReportableError

_TIMEOUT = 300.0  # seconds for one command; a first start may have to wait for a snapshot


class Shown(NamedTuple):
    """A qube of the demonstration, which `insula init` has made, and its label there."""

    name: str
    label: str


QUBES = (Shown("work", "blue"), Shown("personal", "yellow"), Shown("vault", "black"))


class Left(NamedTuple):
    """What is left of a qube: each True for something that is still there."""

    listed: bool
    processes: bool
    volumes: bool
    sockets: bool


def command(*words: str) -> str:
    """Run one of our commands; returns its output.

    Raises:
        ReportableError: it failed; the text is what it said.
    """
    try:
        done = subprocess.run(
            program(*words), capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ReportableError(f"{words[0]} did not end within {_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise ReportableError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def program(*words: str) -> list[str]:
    """The argv of one of our commands, from where this Python has them."""
    return [str(Path(sys.executable).parent / words[0]), *words[1:]]


def listed() -> list[ListedQube]:
    """All qubes."""
    return parse_listed_qubes(admin.ask_dom0("admin.vm.List").decode())


def timed_start(name: str) -> float | None:
    """Start a qube; seconds that took, None when it ran already."""
    if any(one.name == name and one.state == "Running" for one in listed()):
        return None
    began = time.monotonic()
    command("qvm-start", name)
    return time.monotonic() - began


def memory() -> dict[str, tuple[int, int]]:
    """Bytes of memory of each running qube's machine: its own, and shared with others."""
    running = request("status")["running"]
    return {one["name"]: (int(one["private"]), int(one["shared"])) for one in running}


def left_of(qube: ListedQube) -> Left:
    """Look for a qube in every place where there was something of it."""
    return Left(
        listed=any(qube.name == one.name or qube.uuid == one.uuid for one in listed()),
        processes=_in_a_process(qube),
        volumes=(instance.home() / "volumes" / qube.uuid).exists(),
        sockets=(instance.run() / "qubes" / qube.uuid).exists(),
    )


def _in_a_process(qube: ListedQube) -> bool:
    """Whether a process's command line names the qube; a viewer's has its name alone."""
    viewer, name = b"insula.viewer", f'"{qube.name}"'.encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if qube.uuid.encode() in words or (viewer in words and name in words):
                return True
    return False
