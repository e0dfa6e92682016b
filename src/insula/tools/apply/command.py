"""`insula apply` and `insula export`."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools.apply.description import read
from insula.tools.apply.doing import carry_out
from insula.tools.apply.exporting import export
from insula.tools.apply.found import Found
from insula.tools.apply.plan import Plan, make_plan
from insula.tools.command import print_json
from insula.tools.insula import EXIT_TO_DO

STANDARD_OUTPUT = "-"


def apply(arguments: argparse.Namespace) -> int:
    """Bring the system to what a file describes, or show what that takes."""
    wanted = read(Path(arguments.file))
    found = Found(App(cache=True))
    plan = make_plan(App(), wanted, found, remove=arguments.remove)
    if plan.problems:
        raise ReportableError("\n".join([*plan.problems, "Nothing was changed."]))
    if arguments.json:
        print_json([{"unit": one.name, "steps": [step.text for step in one.steps]}
                    for one in plan.units])  # fmt: skip
    else:
        _show(plan)
    if arguments.plan:
        return EXIT_TO_DO if plan.units else 0
    with _ending_in_order():
        return 0 if carry_out(plan, _tell) else 1


def _tell(text: str) -> None:
    with suppress(OSError):  # A terminal may be gone; what is being done is not.
        print(text, file=sys.stderr, flush=True)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let a termination take back what was begun, as an interruption does."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(plan: Plan) -> None:
    if not plan.units:
        print("Nothing to do.")
    for unit in plan.units:
        print(unit.name)
        for step in unit.steps:
            print(f"    {step.text}")
    sys.stdout.flush()


def write(arguments: argparse.Namespace) -> int:
    """Write a file that describes the system."""
    text = export(App(cache=True))
    if arguments.file == STANDARD_OUTPUT:
        print(text, end="")
        return 0
    try:
        Path(arguments.file).write_text(text, "utf-8")
    except OSError as error:
        raise ReportableError(f"{arguments.file} cannot be written: {error.strerror}") from None
    return 0
