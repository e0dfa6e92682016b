"""qvm-shutdown: ask qubes to shut down, and with --wait see to it that they do."""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence

from insula.client import errors
from insula.client.app import App, Qube
from insula.tools import names
from insula.tools.command import Parser, run, warn

DEFAULT_TIMEOUT = 60.0  # seconds
_POLL = 0.1
_DOWN = ("Halted", None)  # None: a disposable that is gone


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-shutdown."""
    parser = Parser(
        "qvm-shutdown",
        "Ask qubes to shut down, and with --wait see to it that they do.",
        examples={
            "qvm-shutdown work": "ask one",
            "qvm-shutdown --wait --timeout 20 work": "wait, and end it after 20 seconds",
            "qvm-shutdown --all --wait": "all of them, net qubes after those that use them",
        },
        exit_codes={
            0: "all are down, or without --wait: all were asked, whatever they answer",
            "other": "with --wait: how many are still up",
        },
    )
    names.add_several(parser)
    parser.add_argument(
        "--wait", action="store_true", help="wait; kill what is still up after the timeout"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        default=DEFAULT_TIMEOUT,
        help=f"how long to wait (default {DEFAULT_TIMEOUT:g})",
    )
    parser.add_argument(
        "--force", action="store_true", help="even where other qubes need one of them"
    )
    parser.add_argument("--dry-run", action="store_true", help="ask nobody; with --wait: only wait")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    app = App()
    qubes = names.find_several(app, arguments)
    force = arguments.force or (arguments.all and not arguments.exclude)
    if not arguments.wait:
        if not arguments.dry_run:
            for qube, error in _ask(qubes, force=force).items():
                warn(qube.name, str(error))
        return 0
    refusals: dict[Qube, errors.QubesException] = {}
    left = qubes
    # Clients keep their net qube up: once they are down it is asked again. Each round takes one
    # qube down or is the last, so that there are at most as many as there are qubes.
    while left:
        refusals = {} if arguments.dry_run else _ask(left, force=force)
        asked = [qube for qube in left if qube not in refusals]
        _await(app, asked, arguments.timeout)
        if not arguments.dry_run:
            _kill(_up(app, asked))
        if not asked:
            break
        left = list(refusals)
    still_up = _up(app, qubes)
    for qube, error in refusals.items():
        warn(qube.name, str(error))
    if still_up:
        up = ", ".join(qube.name for qube in still_up)
        print(f"qvm-shutdown: error: still up: {up}", file=sys.stderr)
    return len(still_up)


def _ask(qubes: Iterable[Qube], *, force: bool) -> dict[Qube, errors.QubesException]:
    """Ask each to shut down; returns who was refused, and why."""
    refused: dict[Qube, errors.QubesException] = {}
    for qube in qubes:
        try:
            qube.call("admin.vm.Shutdown", "force" if force else "")
        except errors.DaemonNotRunningError:
            raise
        except (errors.QubesVMNotStartedError, errors.QubesVMNotFoundError) as error:
            if isinstance(error, errors.QubesVMNotRunningError):
                refused[qube] = error  # It is paused.
        except errors.QubesException as error:
            refused[qube] = error
    return refused


def _await(app: App, qubes: Sequence[Qube], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while _up(app, qubes) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _up(app: App, qubes: Iterable[Qube]) -> list[Qube]:
    states = {listed.name: listed.state for listed in app.domains.listing()}
    return [qube for qube in qubes if states.get(qube.name) not in _DOWN]


def _kill(qubes: Iterable[Qube]) -> None:
    for qube in qubes:
        try:
            qube.call("admin.vm.Kill")
        except errors.QubesException as error:
            warn(qube.name, str(error))
