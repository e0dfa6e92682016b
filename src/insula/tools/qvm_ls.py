"""qvm-ls: list qubes."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from insula.client.app import App, Qube
from insula.tools import names
from insula.tools.command import Parser, UsageError, add_json, completed, print_json, run
from insula.tools.ls_columns import (
    COLUMNS,
    FORMATS,
    NUMERIC,
    cell,
    for_programs,
    heading,
    number,
    property_text,
)
from insula.tools.ls_filters import add_options, filters
from insula.tools.table import print_table

_BRANCH = "└─"
_INDENT = 2
_WAIT = "please wait..."


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-ls."""
    parser = Parser(
        "qvm-ls",
        "List qubes: those named, or all.",
        examples={
            "qvm-ls": "all qubes",
            "qvm-ls --network --tree": "by what they are connected to",
            "qvm-ls -O name,memory,disk --sort memory --reverse --running": "the largest first",
            "qvm-ls --raw-list --tags untrusted": "names alone, for scripts",
        },
    )
    names.add_several(parser)
    shown = parser.add_mutually_exclusive_group()
    format_ = shown.add_argument(
        "-o", "--format", metavar="FORMAT", help="what to show (default simple)"
    )
    completed(format_, lambda _words: tuple(FORMATS))
    fields = shown.add_argument("-O", "--fields", metavar="COL,...", help="which columns to show")
    completed(fields, "columns")
    for short, name in (("-d", "disk"), ("-n", "network"), ("-k", "kernel")):
        shown.add_argument(
            short, f"--{name}", dest="format", action="store_const", const=name,
            help=f"same as --format {name}",
        )  # fmt: skip
    parser.add_argument("-t", "--tree", action="store_true", help="by what they are connected to")
    parser.add_argument("--raw-data", action="store_true", help="no heading; cells joined by |")
    parser.add_argument("--raw-list", action="store_true", help="names only")
    sort = parser.add_argument("--sort", metavar="COLUMN", default="NAME", help="default NAME")
    completed(sort, "columns")
    parser.add_argument("--reverse", action="store_true", help="sort the other way round")
    parser.add_argument("--ignore-case", action="store_true", help="sort without regard to case")
    parser.add_argument("--spinner", action="store_true", default=None, help="show that it works")
    parser.add_argument("--no-spinner", dest="spinner", action="store_false", help="do not")
    parser.add_argument("--help-formats", action="store_true", help="list formats")
    parser.add_argument("--help-columns", action="store_true", help="list columns")
    add_json(parser)
    add_options(parser)
    return run(parser, _run, argv, prefix="Error: ")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.help_formats:
        print_table([(name, ",".join(columns).lower()) for name, columns in FORMATS.items()])
        return 0
    if arguments.help_columns:
        print_table([(name, text) for name, (_, text) in COLUMNS.items()])
        print("Any other name is a property's, see qvm-prefs --help-properties.")
        return 0
    if arguments.json and (arguments.tree or arguments.raw_data or arguments.raw_list):
        raise UsageError("--json does not go with --tree, --raw-data and --raw-list")
    columns, wanted = _columns(arguments), filters(arguments)
    app = App(cache=True)
    qubes = [
        qube for qube in _chosen(app, arguments) if all(condition(qube) for condition in wanted)
    ]
    _show(_rows(qubes, columns, arguments), columns, arguments)
    return 0


def _rows(
    qubes: Sequence[Qube], columns: tuple[str, ...], arguments: argparse.Namespace
) -> list[list[str]]:
    plain = arguments.raw_data or arguments.raw_list or arguments.json
    levels = dict(_tree(qubes)) if arguments.tree else dict.fromkeys(qubes, 0)
    rows = []
    with _Spinner(on=False if plain else arguments.spinner) as spinner:
        for qube, level in levels.items():
            row = [cell(qube, column) for column in columns]
            if level and "NAME" in columns:
                at = columns.index("NAME")
                row[at] = _indented(row[at], level)
            rows.append(row)
            spinner.turn()
    return rows


def _show(rows: list[list[str]], columns: tuple[str, ...], arguments: argparse.Namespace) -> None:
    if arguments.raw_data or arguments.raw_list:
        for row in rows:
            print("|".join(row))
        return
    if not arguments.tree:
        _sort(rows, columns, arguments)
    if arguments.json:
        print_json([for_programs(columns, row) for row in rows])
    elif rows:
        print_table([columns, *rows])


def _columns(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.raw_list:
        return ("NAME",)
    if arguments.fields is not None:
        columns = tuple(heading(one) for one in arguments.fields.split(",") if one.strip())
        if not columns:
            raise UsageError("give columns, separated by commas")
        return columns
    chosen = arguments.format or "simple"
    if chosen not in FORMATS:
        raise UsageError(f"no such format: {chosen!r}; there are {', '.join(FORMATS)}")
    return FORMATS[chosen]


def _chosen(app: App, arguments: argparse.Namespace) -> list[Qube]:
    """The qubes named; all of them, dom0 too, when none is."""
    names.check_several(arguments, required=False)
    known = list(app.domains)
    if arguments.qubes:
        return names.expand(known, arguments.qubes)
    excluded = set(names.expand(known, arguments.exclude))
    return [qube for qube in known if qube not in excluded]


def _sort(rows: list[list[str]], columns: tuple[str, ...], arguments: argparse.Namespace) -> None:
    by = heading(arguments.sort)
    if by not in columns:
        return
    at = columns.index(by)

    def key(row: list[str]) -> tuple[int, str]:
        text = row[at].lower() if arguments.ignore_case else row[at]
        return (number(text), "") if by in NUMERIC else (0, text)

    rows.sort(key=key, reverse=arguments.reverse)


def _tree(qubes: Sequence[Qube]) -> Iterator[tuple[Qube, int]]:
    """Qubes with their levels: those without network, then each net root and what hangs on it."""
    below: dict[str, list[Qube]] = {}
    shown = {qube.name for qube in qubes}
    roots = []
    for qube in sorted(qubes, key=lambda one: one.name):
        netvm = property_text(qube, "netvm")
        if netvm in shown:
            below.setdefault(netvm, []).append(qube)
        else:
            roots.append(qube)

    def branch(qube: Qube, level: int) -> Iterator[tuple[Qube, int]]:
        yield qube, level
        for one in below.get(qube.name, ()):
            yield from branch(one, level + 1)

    def has_network(qube: Qube) -> bool:
        return (
            qube.name in below
            or property_text(qube, "provides_network") == "True"
            or bool(property_text(qube, "netvm"))
        )

    for root in sorted(roots, key=has_network):
        yield from branch(root, 0)


def _indented(name: str, level: int) -> str:
    return " " * (_INDENT * (level - 1)) + _BRANCH + name


class _Spinner:
    """Shows on stderr that something goes on, unless it is off. None: on where it is a terminal."""

    def __init__(self, *, on: bool | None) -> None:
        self._terminal = sys.stderr.isatty()
        self._on = self._terminal if on is None else on

    def __enter__(self) -> "_Spinner":
        if self._on and self._terminal:
            print(_WAIT, end="", file=sys.stderr, flush=True)
        return self

    def turn(self) -> None:
        """A qube is done."""
        if self._on and not self._terminal:
            print(".", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_error: object) -> None:
        if self._on:
            end = f"\r{' ' * len(_WAIT)}\r" if self._terminal else "\n"
            print(end, end="", file=sys.stderr, flush=True)
