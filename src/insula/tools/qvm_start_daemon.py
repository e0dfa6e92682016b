"""qvm-start-daemon, also qvm-start-gui: windows of qubes, by the session that shows them.

In Qubes this command starts a process for each qube. Here one session shows the windows of all
running qubes (`insula session`), so that this command sees to it that there is one.
"""

import argparse
import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from insula.client import instance
from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, UsageError, completed, run

_PIDFILE = "qvm-start-daemon.pid"
_IN_QUBE = "/dev/virtio-ports/org.insula.control"
_SERVICES = ("/var/run/qubes-service/guivm", "/var/run/qubes-service/audiovm")
_DESCRIPTION = "Show the windows of qubes on this display."
_NOTES = (
    "One session shows the windows of all running qubes whose feature gui is not empty, and of "
    "those that start later; without --watch it goes on in the background. Names of qubes are "
    "looked at, but choose nothing. It is the same session as that of insula up and of insula "
    "session, of which an instance has one: where it is shown already, nothing more is to be done.",
    "The session learns of another monitor or keyboard layout from the display itself. "
    "--notify-monitor-layout only tells whether there is a session to have learned it.",
    "--kde, --force-stubdomain and --debug are accepted for scripts that give them, and change "
    "nothing. Inside a qube nothing is done, unless the qube has the service guivm or audiovm, or "
    "--force is given.",
)


class NoSessionError(ReportableError):
    """Nothing watches."""


class AlreadyWatchingError(ReportableError):
    """Another instance of this command holds the pid file."""


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-start-daemon."""
    return _main("qvm-start-daemon", argv)


def gui(argv: Sequence[str] | None = None) -> int:
    """qvm-start-gui."""
    return _main("qvm-start-gui", argv)


def _main(program: str, argv: Sequence[str] | None) -> int:
    parser = Parser(
        program,
        _DESCRIPTION,
        notes=_NOTES,
        examples={
            f"{program} --all": "show windows from now on",
            f"{program} --all --watch": "the same, until interrupted",
        },
        exit_codes={1: "a failure, or another instance holds the pid file"},
    )
    qubes = parser.add_argument("qubes", metavar="VMNAME", nargs="*", help="name of a qube")
    completed(qubes, "qubes")
    parser.add_argument("--all", action="store_true", help="all qubes")
    parser.add_argument(
        "--exclude", metavar="NAME", action="append", default=[], help=argparse.SUPPRESS
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--watch", action="store_true", help="keep running, in the foreground")
    action.add_argument(
        "--notify-monitor-layout", action="store_true",
        help="fail where no session is there to follow the layout of monitors",
    )  # fmt: skip
    pidfile = parser.add_argument(
        "--pidfile", metavar="FILE", type=Path, help="where the number of the process is kept"
    )
    completed(pidfile, "files")
    parser.add_argument("--force", action="store_true", help="in a qube: even without its service")
    parser.add_argument("--force-stubdomain", action="store_true", help="changes nothing here")
    parser.add_argument("--kde", action="store_true", help="changes nothing here")
    parser.add_argument("-d", "--debug", action="store_true", help="changes nothing here")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    in_qube = Path(_IN_QUBE).exists()
    if in_qube and not arguments.force and not any(Path(one).exists() for one in _SERVICES):
        return 0
    if arguments.notify_monitor_layout:
        return _notify()
    names.check_several(arguments, required=False)
    if not arguments.qubes and not arguments.all and not arguments.watch:
        raise UsageError("give the name of a qube, or --all")
    if arguments.qubes:
        names.expand(App().domains, arguments.qubes)
    display = os.environ.get("DISPLAY")
    if not display:
        raise ReportableError("there is no display: DISPLAY is not set")
    if arguments.watch:
        _watch(arguments.pidfile or _default_pidfile())
    from insula.tools.up import show_windows  # noqa: PLC0415 - loads what --help does not need

    show_windows(display)
    return 0


def _default_pidfile() -> Path:
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(folder, _PIDFILE)
    return Path(os.environ.get("HOME") or Path.home(), f".{_PIDFILE}")


def _watch(pidfile: Path) -> NoReturn:
    """Become the session. The pid file is held by a lock, which goes on with us."""
    try:
        held = os.open(pidfile, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ReportableError(f"{pidfile} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise AlreadyWatchingError(f"another process holds {pidfile}") from None
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    os.set_inheritable(held, True)
    os.execv(sys.executable, [sys.executable, "-m", "insula.desktop.session"])


def _notify() -> int:
    """Nothing is to be told: whether there is a session shows in its lock."""
    try:
        lock = os.open(instance.run() / "session.lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        raise NoSessionError("no session shows windows") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    finally:
        os.close(lock)
    raise NoSessionError("no session shows windows")


if __name__ == "__main__":
    sys.exit(main())
