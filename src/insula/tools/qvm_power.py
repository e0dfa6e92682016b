"""qvm-start, qvm-kill, qvm-pause, qvm-unpause: one call for each of several qubes."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from insula.client import errors
from insula.client.app import App, Qube
from insula.tools import names
from insula.tools.command import Parser, run, show

_PREFIX = "Error: "


def start(argv: Sequence[str] | None = None) -> int:
    """qvm-start."""
    parser = Parser("qvm-start", "Start qubes.")
    names.add_several(parser)
    parser.add_argument(
        "--skip-if-running", action="store_true", help="pass over those that run already"
    )
    return run(parser, _start, argv, prefix=_PREFIX)


def kill(argv: Sequence[str] | None = None) -> int:
    """qvm-kill."""
    parser = Parser("qvm-kill", "End qubes at once, without asking them.")
    names.add_several(parser)
    return run(parser, _kill, argv, prefix=_PREFIX)


def pause(argv: Sequence[str] | None = None) -> int:
    """qvm-pause."""
    parser = Parser("qvm-pause", "Pause qubes.")
    names.add_several(parser)
    parser.add_argument(
        "-S", "--suspend", action="store_true", help="let them sleep (S3) where they can"
    )
    return run(parser, _pause, argv, prefix=_PREFIX)


def unpause(argv: Sequence[str] | None = None) -> int:
    """qvm-unpause."""
    parser = Parser("qvm-unpause", "Let paused and suspended qubes go on.")
    names.add_several(parser)
    return run(parser, _unpause, argv, prefix=_PREFIX)


def _start(arguments: argparse.Namespace) -> int:
    qubes = names.find_several(App(cache=True), arguments)
    wanted = []
    for qube in qubes:
        if not qube.is_running():
            wanted.append(qube)
        elif not arguments.skip_if_running:
            return show(errors.QubesVMNotHaltedError(f"{qube} is running already"), _PREFIX)
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
