"""qubes-guivm-session: an X session that is a qube's desktop."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from insula.client import errors
from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, completed, run

_SERVICE = "qubes.GuiVMSession"
_GRACE = 10.0  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """qubes-guivm-session."""
    parser = Parser(
        "qubes-guivm-session",
        "Start a qube, show its windows, and run its desktop session.",
        plain=True,
        notes=(
            f"Starts the qube, runs qvm-start-daemon --watch, and calls {_SERVICE} in the qube; "
            "it ends with that call. Meant to be an X session.",
        ),
        exit_codes={1: "no name was given, or a failure", "other": "the exit code of the service"},
    )
    qube = parser.add_argument("qube", metavar="VMNAME", nargs="?", help="name of the qube")
    completed(qube, "qubes")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.qube is None:
        raise ReportableError("give the name of a qube")  # exit code 1, as that of Qubes
    qube = names.find_one(App(), arguments)
    with suppress(errors.QubesVMNotHaltedError):  # It is as it should be.
        qube.call("admin.vm.Start")
    watch = [sys.executable, "-m", "insula.tools.qvm_start_daemon", "--watch", qube.name]
    serve = [sys.executable, "-m", "insula.tools.qvm_run", "-p", "--no-gui", "--service"]
    with subprocess.Popen(watch) as watching:
        try:
            return subprocess.run([*serve, qube.name, _SERVICE], check=False).returncode
        finally:
            watching.terminate()
            try:
                watching.wait(_GRACE)
            except subprocess.TimeoutExpired:
                watching.kill()


if __name__ == "__main__":
    sys.exit(main())
