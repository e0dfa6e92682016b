"""qvm-check: whether qubes exist and are as asked; the answer is the exit code."""

import argparse
from collections.abc import Callable, Sequence

from insula.client.app import App, Qube
from insula.protocol.admin import ADMIN_QUBE
from insula.tools import names
from insula.tools.command import Parser, UsageError, add_json, print_json, run, say

EXIT_NONE, EXIT_SOME = 1, 3
_LOGGER = "qvm-check"


def _is_networked(qube: Qube) -> bool:
    answer = qube.get_all().get("netvm")
    return answer is not None and bool(answer.value)


_CONDITIONS: dict[str, Callable[[Qube], bool]] = {
    "running": Qube.is_running,
    "paused": lambda qube: qube.state == "Paused",
    "template": lambda qube: qube.klass == "TemplateVM",
    "networked": _is_networked,
}
_HELP = {
    "running": "that they are not halted",
    "paused": "that they are paused",
    "template": "that they are templates",
    "networked": "that they have a net qube",
}


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-check."""
    parser = Parser(
        _LOGGER,
        "Check that qubes exist, and what else is asked of them; all that is asked has to hold.",
        examples={
            "qvm-check -q --running work && echo yes": "do something if a qube runs",
            "qvm-check --all --networked": "name the qubes that have a network",
        },
        exit_codes={
            0: "all given qubes are there and as asked",
            EXIT_NONE: "none is, none was given, or one of them is unknown",
            EXIT_SOME: "some are, but not all",
        },
    )
    names.add_several(parser)
    for condition, text in _HELP.items():
        parser.add_argument(f"--{condition}", action="store_true", help=text)
    add_json(parser)
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    names.check_several(arguments, required=False)
    known = {qube.name: qube for qube in App(cache=True).domains}
    if strangers := [name for name in arguments.exclude if name not in known]:
        raise UsageError(f"no such qube: {strangers[0]!r}")
    wanted = list(dict.fromkeys(arguments.qubes))
    if arguments.all:
        wanted = [name for name in known if name not in (ADMIN_QUBE, *arguments.exclude)]
    asked = [name for name in _CONDITIONS if getattr(arguments, name)]
    unknown = [name for name in wanted if name not in known]
    matching = [
        name
        for name in wanted
        if name in known and all(_CONDITIONS[one](known[name]) for one in asked)
    ]
    _report(matching, unknown, " and ".join(asked) or "exists")
    if arguments.json:
        others = [name for name in wanted if name not in (*matching, *unknown)]
        print_json({"matching": matching, "others": others, "unknown": unknown})
    if not matching or unknown:
        return EXIT_NONE
    return 0 if len(matching) == len(wanted) else EXIT_SOME


def _report(matching: Sequence[str], unknown: Sequence[str], conditions: str) -> None:
    for name in matching:
        say(_LOGGER, f"{name}: {conditions}")
    for name in unknown:
        say(_LOGGER, f"warning: no such qube: {name!r}")
    if not matching:
        say(_LOGGER, f"none of the given qubes: {conditions}")
