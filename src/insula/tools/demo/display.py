"""Where the demonstration is shown: the person's display, or one that is made for it."""

import os
import secrets
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from insula.client import instance
from insula.desktop.lock import shown_on
from insula.protocol.errors import ReportableError
from insula.tools.up import show_windows

SIZE = "1600x1000x24"
_START_TIMEOUT = 30.0  # seconds
_END_TIMEOUT = 5.0
_POLL = 0.02
_WILD = 0xFFFF  # family of an Xauthority entry that fits every address


class Place(NamedTuple):
    """A display with a session on it. ours: it was made for the demonstration, and ends with it."""

    display: str
    ours: bool


@contextmanager
def somewhere(scratch: Path) -> Iterator[Place]:
    """A display on which a session shows the instance's windows.

    Raises:
        ReportableError: there is none, and none can be made.
    """
    given = os.environ.get("DISPLAY") or shown_on(instance.run())
    if given:
        show_windows(given)
        yield Place(given, ours=False)
        return
    with ExitStack() as ending:
        display = _virtual(scratch, ending)
        manager = _program(ending, ["openbox", "--sm-disable"], display, scratch / "openbox.log")
        session = [sys.executable, "-m", "insula.desktop.session", "--display", display]
        showing = _program(ending, session, display, scratch / "session.log")
        _await_session(display, (manager, showing), scratch)
        yield Place(display, ours=True)


def _virtual(scratch: Path, ending: ExitStack) -> str:
    """Start an X server that only our own programs may use; returns its display."""
    for program in ("Xvfb", "openbox"):
        if shutil.which(program) is None:
            error = ReportableError(f"there is no display, and no {program} to make one")
            error.hint = "Install it with: make setup"
            raise error
    authority = scratch / "authority"
    parts = (b"", b"", b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16))
    entry = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    authority.write_bytes(struct.pack(">H", _WILD) + entry)
    authority.chmod(0o600)
    os.environ["XAUTHORITY"] = str(authority)
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", SIZE, "-dpi", "96"]
    command += ["-nolisten", "tcp", "-auth", str(authority), "-noreset"]
    _program(ending, command, "", scratch / "xvfb.log", write)
    os.close(write)
    with os.fdopen(read) as numbers:
        number = numbers.readline().strip()
    if not number:
        raise ReportableError(f"Xvfb did not start: {(scratch / 'xvfb.log').read_text().strip()}")
    return f":{number}"


def _program(
    ending: ExitStack, command: list[str], display: str, log: Path, *descriptors: int
) -> subprocess.Popen[bytes]:
    """Start a program that ends with the demonstration."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "DISPLAY": display},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            start_new_session=True,  # our terminal's Ctrl-C is for us, who end it in order
        )
    ending.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_session(
    display: str, programs: tuple[subprocess.Popen[bytes], ...], scratch: Path
) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while shown_on(instance.run()) != display:
        if any(program.poll() is not None for program in programs) or time.monotonic() > deadline:
            said = [log.read_text().strip() for log in sorted(scratch.glob("*.log"))]
            raise ReportableError("no session could be started\n" + "\n".join(filter(None, said)))
        time.sleep(_POLL)
