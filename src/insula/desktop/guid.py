"""qubes-guid: one qube's windows without a machine, over the socket vchan (gui.md 16 and 17).

The viewer is a process of its own, without a jail; this one is its session. Environment beside that
of the socket vchan: INSULA_PIXELS, a sealed file in place of the qube's pixel region, without which
windows stay empty; INSULA_GUI_RUN in place of /run/qubes.
"""

import asyncio
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from insula.client import instance
from insula.desktop import guid_options, service_calls
from insula.desktop.clipboard import Clipboard
from insula.desktop.hearing import Hearing
from insula.desktop.xdisplay import DisplayError
from insula.desktop.xdisplay import parse as parse_display
from insula.protocol.errors import ReportableError
from insula.qrexec import vchan

_PORT = 6000
_LOGS = Path("/var/log/qubes")
_STARTUP_TIMEOUT = 45  # seconds
_EVALUATE = "policy.EvalSimple"
_SYSTEM_EVALUATE = Path("/etc/qubes-rpc") / _EVALUATE
_ASKED = f"{_EVALUATE}+qubes.ClipboardPaste dom0 keyword adminvm\0".encode()
_ALLOWED = b"result=allow\n"
_ASK_TIMEOUT = 20.0  # seconds
_ENDED_BY_AGENT = 0
_F_ADD_SEALS, _F_SEAL_SHRINK = 1033, 2


class Daemon(NamedTuple):
    """domain: the qube's number; kill: the process of a daemon before us."""

    domain: int
    name: str
    config: str
    run: Path
    kill: int | None
    booting: int  # a lock that is held until the mark is there

    @property
    def mark(self) -> Path:
        """The file that says that a daemon serves the domain, with its process's number."""
        return self.run / f"guid-running.{self.domain}"

    def serve(self, started: int | None) -> int:
        """Serve one agent after the other; started: where to say that the first is there."""
        while True:
            display = parse_display(os.environ.get("DISPLAY", ""))
            with vchan.connect(self.domain, _PORT, None) as channel:
                self.mark.write_text(f"{os.getpid()}\n", encoding="ascii")
                fcntl.flock(self.booting, fcntl.LOCK_UN)
                if started is not None:
                    with suppress(BrokenPipeError):  # whoever started us did not wait
                        os.write(started, b"\0")
                    os.close(started)
                    started = None
                if self.kill is not None:
                    with suppress(ProcessLookupError):
                        os.kill(self.kill, signal.SIGUSR1)
                allowed = display.authorization()
                with display.connect() as connection:
                    connection.settimeout(None)
                    authority = f"{allowed.name.decode()}:{allowed.data.hex()}"
                    code = self._show(connection, channel, authority if allowed.name else "")
            if code != _ENDED_BY_AGENT:
                return 1

    def _show(self, connection: socket.socket, channel: socket.socket, authority: str) -> int:
        """Run a viewer to its end; its exit code."""
        ours, theirs = socket.socketpair()
        pixels = _pixels()
        numbers = [connection.fileno(), channel.fileno(), pixels, theirs.fileno()]
        options = ("--x-fd", "--channel-fd", "--pixels-fd", "--session-fd")
        arguments = [sys.executable, "-m", "insula.viewer", "--channel-kind", "plain"]
        for option, number in zip(options, numbers, strict=True):
            arguments += [option, str(number)]
        viewer = subprocess.Popen(
            [*arguments, "--config", self.config],
            env={**os.environ, "INSULA_X_AUTHORITY": authority},
            pass_fds=numbers,
        )
        os.close(pixels)
        theirs.close()
        try:
            asyncio.run(self._hear(ours))
            return viewer.wait()
        finally:
            viewer.kill()
            viewer.wait()

    async def _hear(self, connection: socket.socket) -> None:
        hearing = Hearing(
            Clipboard(self.run, _paste_allowed),
            tell=_tell,
            ends=_ends,
            kill=_kill_qube,
            call=_call_qube,
        )
        try:
            await hearing.hear(self.name, connection)
        finally:
            await hearing.close()


def _pixels() -> int:
    given = os.environ.get("INSULA_PIXELS")
    if given is not None:
        return os.open(given, os.O_RDONLY | os.O_CLOEXEC)
    nothing = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(nothing, 4096)
    fcntl.fcntl(nothing, _F_ADD_SEALS, _F_SEAL_SHRINK)
    return nothing


def _paste_allowed(source: str, target: str) -> bool:
    """What the policy's daemon says of a paste (section 9.6)."""
    with suppress(OSError, ReportableError), socket.socket(socket.AF_UNIX) as connection:
        own = instance.run() / _EVALUATE
        connection.settimeout(_ASK_TIMEOUT)
        connection.connect(str(own if own.exists() else _SYSTEM_EVALUATE))
        connection.sendall(_ASKED + f"{source}\0{target}".encode("ascii"))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(64):
            answer += chunk
        return answer == _ALLOWED
    return False


async def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
    if shutil.which("notify-send"):
        await _run("notify-send", "--", words)


async def _ends(qube: str) -> bool:
    """Ask, by whatever program of the desktop asks questions."""
    words = f"{qube} sent a message about its windows that no honest program sends."
    if "KDE_SESSION_UID" in os.environ:
        buttons = ("--yes-label", "Terminate", "--no-label", "Ignore")
        return await _run("kdialog", *buttons, "--warningyesno", words) == 0
    buttons = ("--ok-label", "Terminate", "--cancel-label", "Ignore")
    return await _run("zenity", "--question", *buttons, "--text", words) == 0


async def _kill_qube(qube: str) -> None:
    await _run("qvm-kill", "--", qube)


async def _call_qube(qube: str, service: str, given: bytes, most: int) -> bytes | None:
    try:
        return await service_calls.call(qube, service, given, most, command=("qvm-run",))
    except OSError as error:
        print(f"qvm-run: {error}", file=sys.stderr, flush=True)
        return None


async def _run(*arguments: str) -> int | None:
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    except OSError as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr, flush=True)
        return None
    return await process.wait()


def main(words: Sequence[str] | None = None) -> int:
    """Show a qube's windows, in the background unless told otherwise."""
    try:
        given, options = guid_options.parse(words)
        run = Path(os.environ.get("INSULA_GUI_RUN", "/run/qubes"))
        options["no_pixels"] = "INSULA_PIXELS" not in os.environ
        config = {
            "name": given.name, "color": given.color, "label": given.label, "options": options,
        }  # fmt: skip
        timeout = options.get("startup_timeout", _STARTUP_TIMEOUT)
        booting = os.open(
            run / f"guid-booting.{given.domid}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(booting, fcntl.LOCK_EX)
        daemon = Daemon(given.domid, given.name, json.dumps(config), run, given.kill, booting)
        if daemon.mark.exists():
            return 0
        if given.foreground:
            return _serve(daemon, None)
        waits = 0 if given.no_wait or not isinstance(timeout, int) else timeout
        return _serve_in_background(daemon, waits)
    except (OSError, ValueError, DisplayError) as error:
        print(f"qubes-guid: {error}", file=sys.stderr)
        return 1


def _serve_in_background(daemon: Daemon, timeout: int) -> int:
    """Return once the agent is there, or after timeout seconds; a process of its own goes on."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        ready, _, _ = select.select([reading], [], [], timeout)
        started = bool(ready) and os.read(reading, 1) == b"\0"
        return 0 if started or timeout == 0 else 1
    os.close(reading)
    os.setsid()
    _log_to_file(daemon.name)
    os.chdir(daemon.run)
    status = 1
    try:
        status = _serve(daemon, writing)
    finally:
        os._exit(status)


def _serve(daemon: Daemon, started: int | None) -> int:
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda _number, _frame: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the viewer looks at the screen by itself
    try:
        return daemon.serve(started)
    except SystemExit:
        return 0
    except (OSError, DisplayError) as error:
        print(f"qubes-guid: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        daemon.mark.unlink(missing_ok=True)


def _log_to_file(name: str) -> None:
    path = _LOGS / f"guid.{name}.log"
    try:
        with suppress(FileNotFoundError):
            path.rename(f"{path}.old")
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o660)
    except OSError:
        file = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())
