"""qvm-sync-appmenus: ask a qube for its applications, and show them in the host's menu."""

import argparse
from collections.abc import Sequence

from insula.client.app import App, Qube
from insula.client.errors import QubesException
from insula.protocol.errors import ProtocolError, ReportableError
from insula.tools import names
from insula.tools.command import Parser, run, say

_PROGRAM = "qvm-sync-appmenus"


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-sync-appmenus."""
    parser = Parser(
        _PROGRAM,
        "Ask a template or another qube which applications it has, and show them in the host's "
        "menu. A qube that is down is started for that, and shut down again.",
        examples={"qvm-sync-appmenus debian-12": "after programs were installed by hand"},
    )
    names.add_one(parser)
    parser.add_argument(
        "--regenerate-only", action="store_true", help="ask nothing; write the menu anew"
    )
    parser.add_argument("--force-rpc", action="store_true", help=argparse.SUPPRESS)
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    from insula.menus.keeping import ask, refresh  # noqa: PLC0415
    from insula.menus.store import Store  # noqa: PLC0415

    store = Store()
    qube = names.find_one(App(), arguments)
    if not arguments.regenerate_only:
        was_down = qube.is_halted()
        try:
            ask(qube, store)
        except ProtocolError as error:
            raise ReportableError(f"{qube} tells of its applications: {error}") from None
        finally:
            if was_down:
                _shut_down(qube)
        say(_PROGRAM, f"{qube} has {len(store.of(qube.name).applications)} applications")
    refresh(store=store)
    return 0


def _shut_down(qube: Qube) -> None:
    try:
        if qube.is_running():
            qube.shutdown()
    except QubesException as error:
        say(_PROGRAM, f"{qube} goes on: {error}")
