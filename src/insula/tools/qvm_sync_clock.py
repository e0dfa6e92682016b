"""qvm-sync-clock: this host's clock, by that of the clock qube."""

import os
import time
from collections.abc import Sequence

from insula.client.app import App
from insula.client.services import run_service
from insula.protocol.clock import LONGEST, SERVICE, parse_time
from insula.protocol.errors import ReportableError
from insula.tools.command import Parser, run, say

_PROGRAM = "qvm-sync-clock"
_NANO = 10**9


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-sync-clock."""
    parser = Parser(
        _PROGRAM,
        "Set the clock of this host to that of the clock qube. For root alone.",
        examples={
            f'sudo INSULA_RUN="$XDG_RUNTIME_DIR/insula" {_PROGRAM}': "for an instance of your own",
        },
        exit_codes={1: "there is no clock qube, it does not run, or what it says is no time"},
        notes=(
            "The clock qube is the system's property clockvm; it is asked by the service "
            f"{SERVICE}, and not started for that. Running qubes have the host's time.",
        ),
    )
    return run(parser, lambda _arguments: _sync(), argv)


def _sync() -> int:
    if os.geteuid() != 0:
        raise ReportableError("only root can set the clock")
    name = App().get("clockvm").value
    if not name:
        error = ReportableError("there is no clock qube")
        error.hint = "Name one with: qubes-prefs clockvm NAME"
        raise error
    done = run_service(name, SERVICE, autostart=False, limit=LONGEST)
    if done.code:
        raise ReportableError(f"{SERVICE} in {name} failed (status {done.code})")
    try:
        moment = parse_time(done.output)
    except ValueError as error:
        raise ReportableError(f"{name}: {error}") from None
    off = moment - time.time_ns()
    time.clock_settime_ns(time.CLOCK_REALTIME, moment)
    say(_PROGRAM, f"the clock was {abs(off) / _NANO:.3f} s {'slow' if off > 0 else 'fast'}")
    return 0
