"""qvm-check: whether qubes exist and are as asked; the answer is the exit code."""

import argparse
from collections.abc import Callable, Sequence

from insula.client.app import App, Qube
from insula.protocol.admin import ADMIN_QUBE
from insula.tools import names
from insula.tools.command import Parser, run, say

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


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-check."""
    parser = Parser(_LOGGER, "Check that qubes exist, and what else is asked of them.")
    names.add_several(parser)
    for condition in _CONDITIONS:
        text = f"that they are {condition}"
        parser.add_argument(f"--{condition}", action="store_true", help=text)
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    names.check_several(arguments, required=False)
    quiet = arguments.quiet > arguments.verbose
    known = {qube.name: qube for qube in App(cache=True).domains}
    wanted = list(arguments.qubes)
    if arguments.all:
        wanted = [name for name in known if name not in (ADMIN_QUBE, *arguments.exclude)]
    unknown = [name for name in wanted if name not in known]
    asked = [name for name in _CONDITIONS if getattr(arguments, name)]
    text = ", ".join(asked) or "exists"
    matching = []
    for name in wanted:
        if name in known and all(_CONDITIONS[one](known[name]) for one in asked):
            matching.append(name)
            if not quiet:
                say(_LOGGER, f"{name}: {text}")
    if not quiet:
        for name in unknown:
            say(_LOGGER, f"warning: no such qube: {name!r}")
        if not matching:
            say(_LOGGER, f"none of the given qubes: {text}")
    if not matching or unknown:
        return EXIT_NONE
    return 0 if len(matching) == len(wanted) else EXIT_SOME
