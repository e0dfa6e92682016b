"""The service qubes.OpenInVM: opens a file that another qube sends, and sends it back if edited.

Source of the format: in-qube.md section 4.2.
"""

import mimetypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from insula.guest.dialogs import tell
from insula.guest.handlers import find_command
from insula.protocol.errors import ProtocolError
from insula.protocol.open_in_vm import NAME_SIZE, OpenRequest, decode_name

_DISPLAY_SOCKET = Path("/tmp/.X11-unix/X0")
_DISPLAY_TIMEOUT = 60.0  # seconds
_POLL = 0.25
_TYPE_TIMEOUT = 10.0


def main() -> int:
    """Serve one call on standard input and output; returns its exit code."""
    source = os.environ.get("QREXEC_REMOTE_DOMAIN", "")
    if source in ("", ".", "..") or "/" in source:
        return _complain(f"not a qube's name: {source!r}")
    try:
        request = decode_name(_read_whole(NAME_SIZE))
    except ProtocolError as error:
        return _complain(str(error))
    with tempfile.TemporaryDirectory(prefix=f"{source}-", dir="/tmp") as folder:
        path = Path(folder, request.name)
        before = receive(path, request)
        command = find_command(mime_type(path), str(path))
        if not _has_display():
            return _complain("there is no display")
        if command is None:
            return _fail(f"nothing here opens files of type {mime_type(path)}")
        code = view(command, path)
        if code:
            return _fail(f"{command[0]} ended with status {code}")
        if not request.view_only and path.exists() and _times(path) != before:
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    return 0


def receive(path: Path, request: OpenRequest) -> tuple[int, int]:
    """Keep standard input in a new file; returns its times."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        if request.view_only:
            os.fchmod(file.fileno(), 0o400)
    return _times(path)


def mime_type(path: Path) -> str:
    """The type of a file: by its name where that says it, else by its content."""
    by_name, encoding = mimetypes.guess_type(path.name)
    if by_name is not None and encoding is None:
        return by_name
    command = ["file", "--brief", "--mime-type", "--", str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_TYPE_TIMEOUT
        )
    except (OSError, subprocess.SubprocessError):
        return "application/octet-stream"
    return done.stdout.strip()


def view(command: Sequence[str], path: Path) -> int:
    """Run what opens the file until it is done; returns its exit code.

    A program may hand the file over to another one and end: whoever has the path among its words
    is waited for.
    """
    environment = os.environ | {"DISPLAY": os.environ.get("DISPLAY", ":0")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            cwd=path.parent,
            check=False,
        )
    except OSError as error:
        _complain(str(error))
        return 127
    while _is_open(path):
        time.sleep(_POLL)
    return done.returncode


def _is_open(path: Path) -> bool:
    """Whether a process has the path among its words."""
    wanted, own = os.fsencode(path), str(os.getpid())
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != own:
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if wanted in words:
                return True
    return False


def _times(path: Path) -> tuple[int, int]:
    """What tells one state of a file from another; an editor may put a new one in its place."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ino


def _has_display() -> bool:
    """Wait for the qube's X server, which comes up while a qube boots."""
    deadline = time.monotonic() + _DISPLAY_TIMEOUT
    while not (_DISPLAY_SOCKET.exists() or os.environ.get("DISPLAY")):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _read_whole(size: int) -> bytes:
    return sys.stdin.buffer.read(size)


def _fail(text: str) -> int:
    tell(f"The file could not be opened: {text}")
    return _complain(text)


def _complain(text: str) -> int:
    print(f"qubes.OpenInVM: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
