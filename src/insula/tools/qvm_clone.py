"""qvm-clone: make a qube like another."""

import argparse
from collections.abc import Sequence

from insula.client.app import App
from insula.tools import names
from insula.tools.command import Parser, completed, run, warn
from insula.tools.pools import add_pools, chosen_pools

_PROGRAM = "qvm-clone"


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-clone."""
    parser = Parser(
        _PROGRAM,
        "Make a qube like another, with its settings and its files.",
        examples={
            "qvm-clone debian-12 debian-12-office": "a template to change",
            "qvm-clone -P slow work work-old": "with all its volumes in another pool",
        },
        exit_codes={1: "it was not made; nothing of it is left"},
        notes=(
            "Without an option that says otherwise, each volume goes to the pool in which the "
            "source has it.",
        ),
    )
    names.add_one(parser)
    parser.add_argument("name", metavar="NEWVM", help="name of the new qube")
    klass = parser.add_argument(
        "-C", "--class", dest="klass", metavar="CLASS", help="class of the copy (default: the same)"
    )
    completed(klass, "classes")
    parser.add_argument(
        "--ignore-errors", action="store_true", help="go on where settings cannot be copied"
    )
    add_pools(parser)
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    from insula.client.cloning import clone_qube  # noqa: PLC0415 - loads what --help does not need

    pool, pools = chosen_pools(arguments)
    names.check_new_name(arguments.name)
    app = App()
    source = names.find_one(app, arguments)
    complain = None
    if arguments.ignore_errors:

        def complain(text: str) -> None:
            warn(arguments.name, text)

    clone_qube(
        app,
        source,
        arguments.name,
        klass=arguments.klass,
        pool=pool,
        pools=pools,
        complain=complain,
    )
    return 0
