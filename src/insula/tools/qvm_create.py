"""qvm-create: make a qube."""

import argparse
from collections.abc import Sequence

from insula.client import admin, errors
from insula.client.app import App
from insula.tools.command import Parser, UsageError, run, show
from insula.tools.qvm_prefs import qube_value

EXIT_PROPERTY_FAILED = 2
_DISPOSABLE_LABEL = "red"


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-create."""
    parser = Parser("qvm-create", "Make a qube.")
    parser.add_argument("name", metavar="VMNAME", nargs="?", help="name of the new qube")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("-C", "--class", dest="klass", metavar="CLASS", help="default AppVM")
    kind.add_argument(
        "--standalone", dest="klass", action="store_const", const="StandaloneVM",
        help="class StandaloneVM",
    )  # fmt: skip
    kind.add_argument(
        "--disp", dest="klass", action="store_const", const="DispVM",
        help=f"class DispVM, label {_DISPOSABLE_LABEL} unless given",
    )  # fmt: skip
    parser.add_argument("-t", "--template", metavar="NAME", default="", help="template")
    parser.add_argument("-l", "--label", metavar="LABEL", help="label, and so colour of windows")
    parser.add_argument(
        "--property", "--prop", metavar="NAME=VALUE", action="append", default=[],
        help="set a property after creation; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--pool", metavar="VOLUME=POOL", action="append", default=[],
        help="pool for a volume; may be repeated",
    )  # fmt: skip
    parser.add_argument("-P", dest="one_pool", metavar="POOL", help="pool for all volumes")
    parser.add_argument("--no-root", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--help-classes", action="store_true", help="list classes")
    return run(parser, _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    app = App()
    if arguments.help_classes:
        print("\n".join(app.classes()))
        return 0
    klass = arguments.klass or "AppVM"
    label = arguments.label or (_DISPOSABLE_LABEL if klass == "DispVM" else None)
    if not arguments.name:
        raise UsageError("give the name of the new qube")
    if not label:
        raise UsageError(f"give a label, one of {', '.join(app.labels())}")
    properties = _pairs(arguments.property, "NAME=VALUE")
    pools = _pairs(arguments.pool, "VOLUME=POOL")
    if pools and arguments.one_pool:
        raise UsageError("give -P or --pool, not both")
    if label not in (labels := app.labels()):
        raise UsageError(f"no such label: {label!r}; there are {', '.join(labels)}")
    if klass not in (classes := app.classes()):
        raise UsageError(f"no such class: {klass!r}; there are {', '.join(classes)}")
    fields = [("name", arguments.name), ("label", label)]
    if arguments.one_pool:
        fields.append(("pool", arguments.one_pool))
    fields += [(f"pool:{volume}", pool) for volume, pool in pools]
    method = "CreateInPool" if len(fields) > 2 else "Create"
    payload = " ".join(f"{key}={value}" for key, value in fields).encode()
    admin.ask_dom0(f"admin.vm.{method}.{klass}", arguments.template, payload)
    return _set_properties(app, arguments.name, properties)


def _set_properties(app: App, name: str, properties: Sequence[tuple[str, str]]) -> int:
    """Set them all; the qube stays when one fails, and the exit code says so."""
    qube, code = app.domains.known(name), 0
    for key, value in properties:
        try:
            qube.set(key, qube_value(key, value))
        except errors.DaemonNotRunningError:
            raise
        except errors.QubesException as error:
            show(error, f"qvm-create: error: {name} was created, but not its property {key}: ")
            code = EXIT_PROPERTY_FAILED
    return code


def _pairs(given: Sequence[str], form: str) -> list[tuple[str, str]]:
    """Words of the form KEY=VALUE.

    Raises:
        UsageError: one is not.
    """
    found = []
    for word in given:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"{word!r} is not of the form {form}")
        found.append((key, value))
    return found
