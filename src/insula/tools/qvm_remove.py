"""qvm-remove: take qubes away for good."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from insula.client import errors
from insula.client.app import App, Holder, Qube
from insula.protocol.admin import ADMIN_QUBE
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, confirmed, run

_SURE = "IKNOWWHATIAMDOING"


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-remove."""
    parser = Parser(
        "qvm-remove",
        "Remove qubes with all that is in them.",
        examples={
            "qvm-remove work": "ask, then remove one",
            "qvm-remove -f 'test-*'": "remove those that match, and do not ask",
        },
        exit_codes={1: "one could not be removed, or the answer was no"},
    )
    names.add_several(parser)
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    app = App()
    qubes = names.find_several(app, arguments)
    if any(qube.name == ADMIN_QUBE for qube in qubes):
        raise ReportableError(f"{ADMIN_QUBE} cannot be removed")
    if not arguments.force and not _wanted(qubes, arguments):
        print("Nothing was removed.", file=sys.stderr)
        return 1
    for qube in qubes:
        try:
            qube.call("admin.vm.Remove")
        except errors.QubesVMInUseError:
            for use in uses(app, qube):
                print(f" - {use}", file=sys.stderr)
            raise
    return 0


def _wanted(qubes: Sequence[Qube], arguments: argparse.Namespace) -> bool:
    if arguments.all and not arguments.exclude:
        print("This removes every qube, with all that is in them.")
        if not confirmed(f"Write {_SURE} if that is what you want: ", (_SURE,)):
            return False
    print("This removes, with all that is in them:")
    for qube in qubes:
        print(f"  {qube}")
    return confirmed("Are you sure? [y/N] ")


def uses(app: App, qube: Qube) -> Iterator[str]:
    """Where a qube is set: the properties that keep it from being removed."""
    for name in _naming(app, qube, defaults=True):
        yield f"global property {name}"
    for other in app.domains:
        if other != qube:
            for name in _naming(other, qube, defaults=False):
                yield f"{name} for {other}"


def _naming(holder: Holder, qube: Qube, *, defaults: bool) -> list[str]:
    return [
        name
        for name, answer in sorted(holder.get_all().items())
        if answer.type == "vm" and answer.value == qube.name and (defaults or not answer.is_default)
    ]
