"""qvm-volume: what qubes keep on disk."""

import argparse
import sys
from collections.abc import Sequence

from insula.client import errors
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, UsageError, run
from insula.tools.table import print_table

_SHOWN = (
    "pool", "vid", "rw", "source", "save_on_stop", "snap_on_start", "size", "usage",
    "revisions_to_keep", "ephemeral", "is_outdated",
)  # fmt: skip
_HEADING = ("POOL:VOLUME", "VMNAME", "VOLUME_NAME", "REVERT_POSSIBLE")
_LIST_WORDS, _INFO_WORDS = ("list", "ls", "l"), ("info", "i")


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-volume."""
    parser = Parser("qvm-volume", "Look at volumes.")
    parser.intermixed = False
    actions = parser.add_subparsers(
        metavar="ACTION", required=True, parser_class=argparse.ArgumentParser
    )
    add = actions.add_parser("list", aliases=_LIST_WORDS[1:], help="list volumes")
    names.add_several(add)
    add.add_argument(
        "-p", "--pool", metavar="POOL", action="append", default=[], help="only those of a pool"
    )
    add.add_argument("--full", action="store_true", help="name each volume on each line")
    add.set_defaults(work=_list)
    add = actions.add_parser("info", aliases=_INFO_WORDS[1:], help="show one volume")
    add.add_argument("volume", metavar="VM:VOLUME", help="qube and volume")
    add.add_argument("property", metavar="PROPERTY", nargs="?", help="only this")
    add.set_defaults(work=_info)
    words = list(sys.argv[1:] if argv is None else argv)
    first = next((word for word in words if not word.startswith("-")), None)
    if first not in (*_LIST_WORDS, *_INFO_WORDS) and not {"-h", "--help", "--version"} & {*words}:
        words.insert(0, "list")
    return run(parser, lambda arguments: int(arguments.work(arguments)), words, prefix="Error: ")


def _list(arguments: argparse.Namespace) -> int:
    app = App()
    qubes = names.find_several(app, arguments, required=False) or list(app.domains)
    rows = []
    for qube in qubes:
        for name in qube.volumes():
            info = qube.volume(name)
            if arguments.pool and info["pool"] not in arguments.pool:
                continue
            revert = "Yes" if _revisions(qube, name) else "No"
            rows.append((f"{info['pool']}:{info['vid']}", qube.name, name, revert))
    rows.sort()
    if sys.stdout.isatty() and not arguments.full:
        rows = [
            ("", *row[1:]) if number and rows[number - 1][0] == row[0] else row
            for number, row in enumerate(rows)
        ]
    if rows:
        print_table([_HEADING, *rows])
    return 0


def _info(arguments: argparse.Namespace) -> int:
    qube, name = _find(arguments.volume)
    info, wanted = qube.volume(name), arguments.property
    if wanted == "revisions":
        for revision in _revisions(qube, name):
            print(revision)
    elif wanted is not None:
        if wanted not in info:
            raise ReportableError(f"no such property of a volume: {wanted!r}")
        print(info[wanted])
    else:
        print_table([(key, _explained(key, info[key])) for key in _SHOWN if key in info])
        revisions = _revisions(qube, name)
        print("Available revisions (for revert):" + ("" if revisions else " none"))
        for revision in revisions:
            print(f"  {revision}")
    return 0


def _explained(key: str, value: str) -> str:
    if key == "revisions_to_keep" and value == "-1":
        return "-1 (no snapshots: the volume is used in place)"
    return value


def _find(text: str) -> tuple[Qube, str]:
    """The qube and the volume that VM:VOLUME stands for.

    Raises:
        UsageError: it is not of that form.
        ReportableError: there is no such qube or volume.
    """
    qube_name, colon, name = text.partition(":")
    if not qube_name or not colon or not name or ":" in name:
        raise UsageError(f"{text!r} is not of the form VM:VOLUME")
    app = App()
    try:
        qube = app.domains[qube_name]
    except errors.QubesVMNotFoundError as error:
        raise ReportableError(str(error)) from None
    if name not in qube.volumes():
        raise ReportableError(f"{qube} has no volume {name!r}")
    return qube, name


def _revisions(qube: Qube, name: str) -> list[str]:
    listed = qube.call("admin.vm.volume.ListSnapshots", name).decode()
    return [line for line in listed.split("\n") if line]
