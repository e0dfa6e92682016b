"""qubes-vm-update: install updates in templates and standalone qubes."""

import argparse
import queue
import threading
from collections.abc import Sequence
from functools import partial

from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools.command import Parser, add_json, completed, print_json, run
from insula.tools.updating.choosing import STALE_DAYS, chosen, users_with_old_root
from insula.tools.updating.one import Outcome, update
from insula.tools.updating.telling import Tell, summary, told

EXIT_NO_UPDATES = 100
_CONCURRENT = 4


def main(argv: Sequence[str] | None = None) -> int:
    """qubes-vm-update."""
    parser = Parser(
        "qubes-vm-update",
        "Install updates in templates and standalone qubes. Those that do not run are started, and"
        " shut down afterwards; qubes made of a template get its updates when they start next.",
        examples={
            "qubes-vm-update": "what has updates, or of which that has not been known for a week",
            "qubes-vm-update --targets debian-12": "one of them",
            "qubes-vm-update --all --skip build": "all but one",
            "qubes-vm-update --templates --dry-run": "which templates that would be",
        },
        exit_codes={EXIT_NO_UPDATES: "with --signal-no-updates: there was nothing to update"},
    )
    _add_choice(parser)
    parser.add_argument(
        "--max-concurrency", metavar="N", type=_positive, default=_CONCURRENT,
        help=f"how many at once (default {_CONCURRENT})",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only say which qubes are meant")
    parser.add_argument(
        "--show-output", action="store_true", help="show what package managers say, on stderr"
    )
    parser.add_argument("--no-progress", action="store_true", help="no bars, a line for each step")
    parser.add_argument(
        "--no-snapshot", action="store_true",
        help="do not wait until qubes of an updated template start as fast as before",
    )  # fmt: skip
    parser.add_argument(
        "--signal-no-updates", action="store_true",
        help=f"exit code {EXIT_NO_UPDATES} where nothing was to be updated",
    )  # fmt: skip
    add_json(parser)
    return run(parser, _run, argv)


def _add_choice(parser: Parser) -> None:
    group = parser.add_argument_group(
        "which qubes",
        "Without any of these: templates and standalone qubes for which there are updates, or for"
        f" which nobody has looked in {STALE_DAYS} days.",
    )
    for option, text in (
        ("--targets", "these, whatever is known of them, with commas between"),
        ("--skip", "not these"),
    ):
        names = group.add_argument(
            option, metavar="NAME,...", type=_names, action="extend", default=[], help=text
        )
        completed(names, "qubes")
    group.add_argument("--templates", "-T", action="store_true", help="templates")
    group.add_argument("--standalones", "-S", action="store_true", help="standalone qubes")
    group.add_argument("--all", "-A", action="store_true", help="both")
    group.add_argument(
        "--update-if-available", action="store_true",
        help="of these only those for which there are updates",
    )  # fmt: skip
    group.add_argument(
        "--update-if-stale", metavar="DAYS", type=float,
        help="of these only those for which nobody has looked in so many days",
    )  # fmt: skip


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _run(arguments: argparse.Namespace) -> int:
    names = [qube.name for qube in chosen(App(), arguments)]
    if arguments.dry_run:
        print_json(names) if arguments.json else print("\n".join(names) or "Nothing to update.")
        return 0
    with told(names, bars=not arguments.no_progress) as tell:
        outcomes = _update_all(names, arguments, tell)
    if arguments.json:
        print_json([outcome.as_json() for outcome in outcomes])
    else:
        _show(outcomes)
    if any(outcome.error is not None for outcome in outcomes):
        return 1
    nothing = not any(outcome.packages for outcome in outcomes)
    return EXIT_NO_UPDATES if nothing and arguments.signal_no_updates else 0


def _show(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        print(summary(outcome))
    if not outcomes:
        print("Nothing to update.")
    updated = [outcome.qube for outcome in outcomes if outcome.packages]
    if updated and (old := users_with_old_root(App(), updated)):
        print(f"Restart these to have the updates in them: {', '.join(old)}")


def _update_all(names: list[str], arguments: argparse.Namespace, tell: Tell) -> list[Outcome]:
    """Update all, several at once; the outcomes are in the order of the names."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    outcomes: dict[str, Outcome] = {}

    def work() -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes[name] = update(
                    name,
                    partial(tell, name),
                    show_output=arguments.show_output,
                    snapshot=not arguments.no_snapshot,
                )
            except ReportableError as error:
                outcomes[name] = Outcome(name, error=str(error))
            tell(name, outcomes[name].status, 100)

    # An interruption ends the process, and with it what its threads wait for.
    count = min(arguments.max_concurrency, len(names))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[name] for name in names]
