"""Names of qubes on a command line (qvm-tools.md section 1.3)."""

import argparse
from collections.abc import Iterable

from insula.client.app import App, Qube
from insula.protocol.admin import ADMIN_QUBE
from insula.protocol.errors import ReportableError
from insula.tools.command import UsageError, completed

_PATTERN = frozenset("*?[!]")


def add_one(parser: argparse.ArgumentParser) -> None:
    """VMNAME: exactly one name."""
    completed(parser.add_argument("qube", metavar="VMNAME", help="name of the qube"), "qubes")


def add_several(parser: argparse.ArgumentParser) -> None:
    """VMNAME...: any number of names or patterns, or --all."""
    text = "name of a qube, or a pattern"
    completed(parser.add_argument("qubes", metavar="VMNAME", nargs="*", help=text), "qubes")
    parser.add_argument("--all", action="store_true", help="all qubes but dom0")
    text = "with --all: leave one out"
    exclude = parser.add_argument(
        "--exclude", metavar="NAME", action="append", default=[], help=text
    )
    completed(exclude, "qubes")


def find_one(app: App, arguments: argparse.Namespace) -> Qube:
    """The qube of add_one.

    Raises:
        UsageError: there is no such qube, or a pattern does not match exactly one.
    """
    return find_name(app, arguments.qube)


def find_name(app: App, name: str) -> Qube:
    """The one qube that a name or a pattern stands for.

    Raises:
        UsageError: there is none, or more than one.
    """
    found = expand(list(app.domains), [name])
    if len(found) != 1:
        raise UsageError(f"{name!r} is {len(found)} qubes, not one")
    return found[0]


def find_several(app: App, arguments: argparse.Namespace, *, required: bool = True) -> list[Qube]:
    """The qubes of add_several, each once.

    Raises:
        UsageError: names and --all are both given or (when required) neither, or a name is unknown.
    """
    check_several(arguments, required=required)
    known = list(app.domains)
    if not arguments.all:
        return expand(known, arguments.qubes)
    excluded = set(expand(known, arguments.exclude))
    return [qube for qube in known if qube.name != ADMIN_QUBE and qube not in excluded]


def check_new_name(name: str) -> None:
    """Look at the name of a qube to be made: the daemon would refuse some without a word.

    Raises:
        ReportableError: it breaks a request.
    """
    if not name.isascii() or not name.isprintable() or set(name) & {" ", "="}:
        error = ReportableError(f"{name!r} cannot be the name of a qube")
        error.hint = "A name is letters, digits, and the characters _ . - after the first letter."
        raise error


def check_several(arguments: argparse.Namespace, *, required: bool = True) -> None:
    """Look at how names and --all are combined, before anything is asked of the daemon.

    Raises:
        UsageError: they cannot be meant so.
    """
    if arguments.all and arguments.qubes:
        raise UsageError("give names or --all, not both")
    if arguments.exclude and not arguments.all:
        raise UsageError("--exclude goes with --all")
    if required and not arguments.all and not arguments.qubes:
        raise UsageError("give the name of a qube, or --all")


def expand(known: Iterable[Qube], given: Iterable[str]) -> list[Qube]:
    """The qubes that names and patterns stand for, in the order given, each once.

    Raises:
        UsageError: a plain name is unknown.
    """
    by_name = {qube.name: qube for qube in known}
    found: dict[str, Qube] = {}
    for name in given:
        if _PATTERN.isdisjoint(name):
            if name not in by_name:
                raise UsageError(f"no such qube: {name!r}")
            found[name] = by_name[name]
            continue
        from fnmatch import fnmatchcase  # noqa: PLC0415 - patterns are rare

        found |= {one: qube for one, qube in by_name.items() if fnmatchcase(one, name)}
    return list(found.values())
