"""qvm-appmenus: which applications of qubes the host's menu shows (gui.md section 12.3)."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, UsageError, completed, run

if TYPE_CHECKING:
    from insula.menus.store import Store
    from insula.menus.system import Item, MenuQube

_PROGRAM = "qvm-appmenus"
_SHOWN, _DEFAULT = "menu-items", "default-menu-items"
_FILE = re.compile(r"[A-Za-z0-9._-]+\.desktop", re.ASCII)
_FIELDS = {
    "Name": "name",
    "GenericName": "generic_name",
    "Comment": "comment",
    "Icon": "icon",
    "StartupWMClass": "window_class",
}


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-appmenus."""
    parser = Parser(
        _PROGRAM,
        "Choose which applications of qubes the host's menu shows, and have it written.",
        examples={
            "qvm-appmenus --get-available work": "what could be shown",
            "echo xterm.desktop | qvm-appmenus --set-whitelist - --update work": "show just that",
            "qvm-appmenus --update --all": "write the menu anew",
        },
        notes=(
            "What is chosen is the feature menu-items of a qube, or else default-menu-items of its "
            "template; without either all is shown. While a session runs, the menu follows by "
            "itself.",
        ),
    )
    names.add_several(parser)
    _add_actions(parser)
    source = parser.add_argument(
        "--source", metavar="VMNAME", help="with --init: the qube of which it is a copy"
    )
    completed(source, "qubes")
    template = parser.add_argument(
        "--template", metavar="VMNAME", help="with --get-available: as if it had that template"
    )
    completed(template, "qubes")
    parser.add_argument(
        "--file-field", metavar="FIELD", action="append", default=[], choices=sorted(_FIELDS),
        help="with --get-available: show this key of each, too",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="qubes without a menu are no mistake")
    parser.add_argument(
        "--i-understand-format-is-changing", action="store_true", help=argparse.SUPPRESS
    )
    return run(parser, _run, argv)


def _add_actions(parser: argparse.ArgumentParser) -> None:
    for option, text in (
        ("--init", "begin to keep applications of a qube"),
        ("--create", "show a qube's applications"),
        ("--update", "the same"),
        ("--remove", "show none of them until something of the qube changes"),
        ("--get-available", "list what could be shown, each file with its name"),
        ("--get-whitelist", "list what is chosen for a qube"),
        ("--get-default-whitelist", "list what is chosen for new qubes of a template"),
    ):
        parser.add_argument(option, action="store_true", help=text)
    for option, text in (
        ("--set-whitelist", "choose for a qube, by a file with the names of files; - is the input"),
        ("--set-default-whitelist", "choose for new qubes of a template"),
    ):
        completed(parser.add_argument(option, metavar="FILE", help=text), "files")


def _run(arguments: argparse.Namespace) -> int:
    from insula.menus.store import Store  # noqa: PLC0415

    app, store = App(cache=True), Store()
    qubes = names.find_several(app, arguments)
    changes = arguments.set_whitelist is not None, arguments.set_default_whitelist is not None
    writes = arguments.create or arguments.update or arguments.remove
    shows = arguments.get_available, arguments.get_whitelist, arguments.get_default_whitelist
    if not (arguments.init or writes or any(shows) or any(changes)):
        raise UsageError("say what is to be done")
    if sum(changes) + sum(map(bool, shows)) > 1:
        raise UsageError("only one list at a time")
    for name, feature in (
        (arguments.set_whitelist, _SHOWN),
        (arguments.set_default_whitelist, _DEFAULT),
    ):
        if name is not None:
            _choose(qubes, feature, name)
    for qube in qubes:
        if arguments.init and arguments.source:
            store.copy(names.find_name(app, arguments.source).name, qube.name)
        if arguments.get_whitelist or arguments.get_default_whitelist:
            _list_chosen(qube, _SHOWN if arguments.get_whitelist else _DEFAULT)
    if arguments.get_available:
        _list_available(app, store, qubes, arguments)
    if writes:
        _write(app, store, qubes, arguments)
    return 0


def _choose(qubes: Sequence[Qube], feature: str, name: str) -> None:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ReportableError(f"{name} cannot be read: {error}") from None
    files = [line.strip() for line in text.splitlines() if line.strip()]
    for file in files:
        if _FILE.fullmatch(file) is None:
            raise ReportableError(f"{file!r} is not the name of a desktop file")
    for qube in qubes:
        qube.features[feature] = " ".join(files)


def _list_chosen(qube: Qube, feature: str) -> None:
    for file in (qube.features.get(feature) or "").split():
        print(file)


def _list_available(
    app: App, store: "Store", qubes: Sequence[Qube], arguments: argparse.Namespace
) -> None:
    for qube in qubes:
        wanted = names.find_name(app, arguments.template) if arguments.template else qube
        for item in _available(app, store, wanted, force=arguments.force):
            application = item.application
            more = [getattr(application, _FIELDS[field]) for field in arguments.file_field]
            print(" - ".join((f"{application.id}.desktop", application.name, *more)))


def _available(app: App, store: "Store", qube: Qube, *, force: bool) -> "Sequence[Item]":
    found = _menus(app, store).get(qube.name)
    if found is None and not force:
        raise ReportableError(f"{qube} has no menu")
    return found.available if found is not None else ()


def _write(app: App, store: "Store", qubes: Sequence[Qube], arguments: argparse.Namespace) -> None:
    from insula.menus.keeping import show  # noqa: PLC0415

    shown = _menus(app, store)
    for qube in qubes:
        if qube.name not in shown and not (arguments.force or arguments.remove or arguments.all):
            raise ReportableError(f"{qube} has no menu")
        if arguments.remove and not (arguments.create or arguments.update):
            shown.pop(qube.name, None)
    show(shown, store)


def _menus(app: App, store: "Store") -> "dict[str, MenuQube]":
    from insula.menus.system import menu_qubes  # noqa: PLC0415

    return menu_qubes(app, store)
