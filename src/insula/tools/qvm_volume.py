"""qvm-volume: what qubes keep on disk."""

import argparse
import sys
from collections.abc import Sequence

from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import (
    Parser,
    UsageError,
    add_json,
    completed,
    confirmed,
    print_json,
    run,
)
from insula.tools.sizes import parse_size
from insula.tools.table import print_table
from insula.tools.volumes import NamedVolume, find_volume, revisions_of

_SHOWN = (
    "pool", "vid", "rw", "source", "save_on_stop", "snap_on_start", "size", "usage",
    "revisions_to_keep", "ephemeral", "is_outdated",
)  # fmt: skip
_HEADING = ("POOL:VOLUME", "VMNAME", "VOLUME_NAME", "REVERT_POSSIBLE")
_SETTINGS = ("rw", "revisions_to_keep", "ephemeral")


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-volume."""
    parser = Parser(
        "qvm-volume",
        "Look at volumes of qubes and change them. Without an action they are listed.",
        default_command="list",
        examples={
            "qvm-volume": "list all volumes",
            "qvm-volume info work:private": "show one volume and its revisions",
            "qvm-volume resize work:private 10GiB": "give it more room",
            "qvm-volume revert work:private": "go back to the state before the last start",
            "qvm-volume import work:private disk.img": "replace its content",
        },
        notes=("A volume is named by its qube and its own name, as in work:private.",),
    )
    actions = parser.add_commands(metavar="ACTION")
    _add_readers(actions)
    _add_changes(actions)
    return run(parser, lambda arguments: int(arguments.work(arguments)), argv, prefix="Error: ")


def _add_readers(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add = actions.add_parser("list", aliases=("ls", "l"), help="list volumes")
    names.add_several(add)
    pool = add.add_argument(
        "-p", "--pool", metavar="POOL", action="append", default=[], help="only those of a pool"
    )
    completed(pool, "pools")
    add.add_argument("--full", action="store_true", help="name each volume on each line")
    add_json(add)
    add.set_defaults(work=_list)
    add = actions.add_parser("info", aliases=("i",), help="show one volume")
    _add_volume(add)
    add.add_argument(
        "property",
        metavar="PROPERTY",
        nargs="?",
        help=f"only this: {', '.join(_SHOWN)} or revisions",
    )
    add_json(add)
    add.set_defaults(work=_info)


def _add_changes(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add = actions.add_parser("config", aliases=("c", "set", "s"), help="set a property")
    _add_volume(add)
    add.add_argument("property", metavar="PROPERTY", help=", ".join(_SETTINGS))
    add.add_argument("value", metavar="VALUE", help="what it is to be")
    add.set_defaults(work=_config)
    add = actions.add_parser("resize", aliases=("extend",), help="give a volume another size")
    _add_volume(add)
    add.add_argument("size", metavar="SIZE", help="bytes, or with a unit: 20GiB")
    add.add_argument("-f", "--force", action="store_true", help="even if it is smaller than now")
    add.set_defaults(work=_resize)
    add = actions.add_parser("revert", aliases=("rv", "r"), help="go back to a former state")
    _add_volume(add)
    text = "which one (the newest when it is left out)"
    add.add_argument("revision", metavar="REVISION", nargs="?", help=text)
    add.set_defaults(work=_revert)
    add = actions.add_parser("import", help="replace what a volume holds by a file")
    _add_volume(add)
    text = "the file, - for standard input"
    completed(add.add_argument("path", metavar="PATH", help=text), "files")
    size = add.add_mutually_exclusive_group()
    size.add_argument("--size", metavar="BYTES", help="size of the data, and then of the volume")
    text = "keep the volume's size; there has to be exactly as much data"
    size.add_argument("--no-resize", action="store_true", help=text)
    add.set_defaults(work=_import)
    add = actions.add_parser("clear", help="remove everything from a volume")
    _add_volume(add)
    _add_force(add)
    add.set_defaults(work=_clear)
    add = actions.add_parser("clone", help="give a volume the content of another")
    _add_volume(add, "source", "the volume that is copied, as VM:VOLUME")
    _add_volume(add, "volume", "the volume that gets its content, as VM:VOLUME")
    _add_force(add)
    add.set_defaults(work=_clone)


def _add_volume(
    parser: argparse.ArgumentParser, name: str = "volume", text: str = "qube and volume"
) -> None:
    completed(parser.add_argument(name, metavar="VM:VOLUME", help=text), "volumes")


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")


def _list(arguments: argparse.Namespace) -> int:
    app = App()
    qubes = names.find_several(app, arguments, required=False)
    if not qubes and not arguments.qubes:
        qubes = list(app.domains)
    rows = []
    for qube in qubes:
        for name in qube.volumes:
            info = qube.volumes.named(name).info()
            if arguments.pool and info["pool"] not in arguments.pool:
                continue
            revert = "Yes" if revisions_of(qube, name) else "No"
            rows.append((f"{info['pool']}:{info['vid']}", qube.name, name, revert))
    rows.sort()
    if arguments.json:
        print_json([dict(zip(map(str.lower, _HEADING), row, strict=True)) for row in rows])
        return 0
    if sys.stdout.isatty() and not arguments.full:
        rows = [
            ("", *row[1:]) if number and rows[number - 1][0] == row[0] else row
            for number, row in enumerate(rows)
        ]
    if rows:
        print_table([_HEADING, *rows])
    return 0


def _info(arguments: argparse.Namespace) -> int:
    volume = find_volume(arguments.volume)
    info, wanted = volume.info(), arguments.property
    if wanted is not None and wanted != "revisions" and wanted not in info:
        raise ReportableError(f"no such property of a volume: {wanted!r}")
    if arguments.json:
        fields = {**info, "revisions": volume.revisions()}
        print_json(fields if wanted is None else fields[wanted])
    elif wanted == "revisions":
        print("".join(f"{revision}\n" for revision in volume.revisions()), end="")
    elif wanted is not None:
        print(info[wanted])
    else:
        print_table([(key, _explained(key, info[key])) for key in _SHOWN if key in info])
        revisions = volume.revisions()
        print("Available revisions (for revert):" + ("" if revisions else " none"))
        for revision in revisions:
            print(f"  {revision}")
    return 0


def _explained(key: str, value: str) -> str:
    if key == "revisions_to_keep" and value == "-1":
        return "-1 (no snapshots: the volume is used in place)"
    return value


def _config(arguments: argparse.Namespace) -> int:
    if arguments.property not in _SETTINGS:
        raise ReportableError(
            f"no such property to set: {arguments.property!r}; there are {', '.join(_SETTINGS)}"
        )
    volume = find_volume(arguments.volume)
    volume.call(f"Set.{arguments.property}", arguments.value)
    return 0


def _resize(arguments: argparse.Namespace) -> int:
    size = _size(arguments.size)
    volume = find_volume(arguments.volume)
    now = int(volume.info()["size"])
    if size < now and not arguments.force:
        raise ReportableError(
            f"{volume} has {now} bytes, which is more; what lies beyond {size} would be lost. "
            "If you mean it, use --force"
        )
    volume.call("Resize", str(size))
    return 0


def _revert(arguments: argparse.Namespace) -> int:
    volume = find_volume(arguments.volume)
    revisions = volume.revisions()
    if not revisions:
        raise ReportableError(f"{volume} has no former state to go back to")
    revision = arguments.revision or revisions[-1]
    if revision not in revisions:
        raise ReportableError(
            f"{volume} has no revision {revision!r}; there are {', '.join(revisions)}"
        )
    volume.call("Revert", revision)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from insula.client.importing import import_volume  # noqa: PLC0415 - only for this
    from insula.tools.volumes import opened, size_of  # noqa: PLC0415

    volume = find_volume(arguments.volume)
    with opened(arguments.path) as source:
        size = None if arguments.size is None else _size(arguments.size)
        if size is None and not arguments.no_resize:
            size = size_of(source)
        import_volume(volume.qube.name, volume.name, source, size)
    return 0


def _clear(arguments: argparse.Namespace) -> int:
    volume = find_volume(arguments.volume)
    if _sure(arguments, volume):
        volume.call("Clear")
    return 0


def _clone(arguments: argparse.Namespace) -> int:
    source, volume = find_volume(arguments.source), find_volume(arguments.volume)
    if _sure(arguments, volume):
        volume.call("CloneTo", source.call("CloneFrom"))
    return 0


def _sure(arguments: argparse.Namespace, volume: NamedVolume) -> bool:
    question = f"Everything that {volume} holds will be lost. Go on? [y/N] "
    return arguments.force or confirmed(question)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
