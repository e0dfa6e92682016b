"""A qube around the test's process: qrexec-client-vm is a program of the test's own.

It is policy and dom0 at once: it refuses services that are listed, asks the daemon for methods of
the Admin API, and runs anything else beside the test.
"""

import sys
from pathlib import Path

import pytest

from insula.client import instance

CLIENT = """#!{python}
import os, socket, subprocess, sys
place = {place!r}
words = sys.argv[1:]
options = words[: words.index("--")]
target, service, *program = words[words.index("--") + 1 :]
with open(place + "/called", "a") as called:
    print(*(word.replace(chr(10), "") for word in (target, service, *options)), file=called)
if service in open(place + "/refused").read().split():
    print("Request refused", file=sys.stderr)
    sys.exit(126)
first = b""
for option in options:
    if option.startswith("--prefix-data="):
        first = os.fsencode(option.partition("=")[2])
method, _, argument = service.partition("+")
if method.startswith("admin.vm.volume.Import"):
    os.environ.update(
        QREXEC_REMOTE_DOMAIN="dom0", QREXEC_REQUESTED_TARGET=target, INSULA_RUN={run!r}
    )
    function = "with_size" if method.endswith("WithSize") else "own_size"
    code = "from insula.tools.volume_import import %s; raise SystemExit(%s())"
    os.execv(sys.executable, [sys.executable, "-c", code % (function, function), argument])
if method.startswith("admin.") and method != "admin.vm.Console":
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect({run!r} + "/qubesd.sock")
        daemon.sendall(f"{{service}} dom0 name {{target}}\\0".encode() + sys.stdin.buffer.read())
        daemon.shutdown(socket.SHUT_WR)
        while data := daemon.recv(4096):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    sys.exit(0)
served = ["bash"] if method == "qubes.VMShell" else ["sh", "-c", os.environ["SERVICE"]]
if program:
    there = subprocess.Popen(served, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    there.stdin.write(first)
    there.stdin.flush()
    here = subprocess.Popen(program, stdin=there.stdout, stdout=there.stdin)
    there.stdin.close()
    there.stdout.close()
    here.wait()
    sys.exit(there.wait())
if first:
    read, write = os.pipe()
    if not os.fork():
        os.close(read)
        os.write(write, first)
        while data := os.read(0, 4096):
            os.write(write, data)
        os._exit(0)
    os.close(write)
    os.dup2(read, 0)
    os.close(read)
os.execvp(served[0], served)
"""


class InQube:
    """What the qube's programs called, and what is refused to them."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.refuse()

    def refuse(self, *services: str) -> None:
        """Refuse these from now on, and nothing else."""
        (self._place / "refused").write_text(" ".join(services))

    def called(self) -> list[str]:
        """Target, service and options of each call since the last time."""
        called = self._place / "called"
        found = called.read_text().splitlines() if called.exists() else []
        called.unlink(missing_ok=True)
        return found


def go_into_qube(place: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> InQube:
    """Have the client take this process for one in a qube; run: of the daemon that answers."""
    place.mkdir()
    program = place / "qrexec-client-vm"
    program.write_text(CLIENT.format(python=sys.executable, place=str(place), run=str(run)))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.delenv("INSULA_RUN", raising=False)
    monkeypatch.setattr(instance, "_AGENT", str(program))
    monkeypatch.setattr(instance, "_ADMIN_MARK", str(place / "none"))
    return InQube(place)
