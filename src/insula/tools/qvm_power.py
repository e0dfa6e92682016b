"""qvm-start, qvm-kill, qvm-pause, qvm-unpause: one call for each of several qubes."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from insula.client import errors
from insula.client.app import App, Qube
from insula.tools import names
from insula.tools.command import Parser, completed, run, show

_PREFIX = "Error: "
_WINDOWS_TOOLS = "cdrom:dom0:/usr/lib/qubes/qubes-windows-tools.iso"


def start(argv: Sequence[str] | None = None) -> int:
    """qvm-start."""
    parser = Parser(
        "qvm-start",
        "Start qubes.",
        examples={
            "qvm-start work": "start one, and wait until it is up",
            "qvm-start --skip-if-running --all": "start all that do not run yet",
            "qvm-start --cdrom dom0:/home/me/install.iso new": "with a CD, for this start",
        },
        exit_codes={1: "one could not be started; the others were"},
        notes=(
            "A DRIVE is [cdrom:|hd:]QUBE:DEVICE, a block device that QUBE shows, or "
            "[cdrom:|hd:]QUBE:/PATH, a file there, of which a loop device is made; for a file of "
            "dom0 that takes root or sudo. Without cdrom: or hd: it is a CD.",
        ),
    )
    names.add_several(parser)
    parser.add_argument(
        "--skip-if-running", action="store_true", help="pass over those that run already"
    )
    _add_drives(parser)
    return run(parser, _start, argv, prefix=_PREFIX)


def _add_drives(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    for option, before, text in (
        ("--drive", "", "attach a drive for this start"),
        ("--hddisk", "hd:", "attach a drive as a disk"),
        ("--cdrom", "cdrom:", "attach a drive as a CD"),
    ):
        drive = group.add_argument(
            option, dest="drive", metavar="DRIVE", help=text,
            type=before.__add__,
        )  # fmt: skip
        completed(drive, "devices")
    group.add_argument(
        "--install-windows-tools", dest="drive", action="store_const", const=_WINDOWS_TOOLS,
        help="attach the CD with Windows tools",
    )  # fmt: skip


def kill(argv: Sequence[str] | None = None) -> int:
    """qvm-kill."""
    parser = Parser(
        "qvm-kill",
        "End qubes at once, without asking them. What they have not written is lost.",
        exit_codes={1: "one could not be ended; the others were"},
    )
    names.add_several(parser)
    return run(parser, _kill, argv, prefix=_PREFIX)


def pause(argv: Sequence[str] | None = None) -> int:
    """qvm-pause."""
    parser = Parser(
        "qvm-pause",
        "Pause qubes.",
        exit_codes={1: "one could not be paused; the others were"},
    )
    names.add_several(parser)
    parser.add_argument(
        "-S", "--suspend", action="store_true", help="let them sleep (S3) where they can"
    )
    return run(parser, _pause, argv, prefix=_PREFIX)


def unpause(argv: Sequence[str] | None = None) -> int:
    """qvm-unpause."""
    parser = Parser(
        "qvm-unpause",
        "Let paused and suspended qubes go on; with --all not those with feature internal.",
        exit_codes={1: "one could not be woken; the others were"},
    )
    names.add_several(parser)
    return run(parser, _unpause, argv, prefix=_PREFIX)


def _start(arguments: argparse.Namespace) -> int:
    app = App(cache=True)
    wanted = []
    for qube in names.find_several(app, arguments):
        if not qube.is_running():
            wanted.append(qube)
        elif not arguments.skip_if_running:
            return show(errors.QubesVMNotHaltedError(f"{qube} is running already"), _PREFIX)
    if arguments.drive is None:
        return _each(wanted, lambda qube: qube.call("admin.vm.Start"))
    from insula.tools.drives import assigned_drive, parse_drive  # noqa: PLC0415 - rarely wanted

    drive = parse_drive(arguments.drive)
    if not wanted:
        return 0
    with assigned_drive(app, drive, wanted):
        return _each(wanted, lambda qube: qube.call("admin.vm.Start"))


def _kill(arguments: argparse.Namespace) -> int:
    def end(qube: Qube) -> None:
        with suppress(errors.QubesVMNotStartedError):  # It is halted, as it was to be.
            qube.call("admin.vm.Kill")

    return _each(names.find_several(App(), arguments), end)


def _pause(arguments: argparse.Namespace) -> int:
    method = "admin.vm.Suspend" if arguments.suspend else "admin.vm.Pause"
    return _each(names.find_several(App(), arguments), lambda qube: qube.call(method))


def _unpause(arguments: argparse.Namespace) -> int:
    qubes = names.find_several(App(cache=True), arguments)
    if arguments.all:
        qubes = [qube for qube in qubes if not qube.features.get("internal")]

    def go_on(qube: Qube) -> None:
        suspended = qube.state == "Suspended"
        qube.call("admin.vm.Resume" if suspended else "admin.vm.Unpause")

    return _each(qubes, go_on)


def _each(qubes: Iterable[Qube], act: Callable[[Qube], object]) -> int:
    """Act on every qube; 1 when one of them failed, which does not keep the others from it."""
    code = 0
    for qube in qubes:
        try:
            act(qube)
        except errors.DaemonNotRunningError:
            raise
        except errors.QubesException as error:
            show(error, _PREFIX)
            code = 1
    return code
