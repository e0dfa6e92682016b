"""qvm-create: make a qube."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from insula.client import admin, errors
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, UsageError, completed, run, show
from insula.tools.pools import add_pools, chosen_pools, pairs
from insula.tools.qvm_prefs import qube_value

EXIT_PROPERTY_FAILED = 2
EXIT_IMPORT_FAILED = 3
_DISPOSABLE_LABEL = "red"
_DEFAULT_CLASS = "AppVM"
_ROOT_OF_TEMPLATE = ("AppVM", "DispVM")


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-create."""
    parser = Parser(
        "qvm-create",
        "Make a qube.",
        examples={
            "qvm-create --label green bank": "an app qube of the default template",
            "qvm-create -C AppVM -t debian-12 -l red --prop template_for_dispvms=True dvm": "a "
            "template of disposables",
            "qvm-create --standalone -t debian-12 -l blue build": "a qube with a root of its own",
            "qvm-create --standalone -l gray -r disk.img old": "a qube from an image",
        },
        exit_codes={
            1: "it was not created",
            EXIT_PROPERTY_FAILED: "it was created, but a property could not be set; or a usage "
            "error, and nothing was created",
            EXIT_IMPORT_FAILED: "it was created, but its root volume could not be imported",
        },
    )
    parser.add_argument("name", metavar="VMNAME", nargs="?", help="name of the new qube")
    _add_kind(parser)
    template = parser.add_argument("-t", "--template", metavar="NAME", default="", help="template")
    completed(template, "qubes")
    label = parser.add_argument(
        "-l", "--label", metavar="LABEL", help="label, and so colour of windows"
    )
    completed(label, "labels")
    set_ = parser.add_argument(
        "--property", "--prop", metavar="NAME=VALUE", action="append", default=[],
        help="set a property after creation; may be repeated",
    )  # fmt: skip
    completed(set_, "properties")
    add_pools(parser)
    root = parser.add_mutually_exclusive_group()
    for short, verb, text in (
        ("-r", "copy", "import as root volume"),
        ("-R", "move", "same, then delete FILE"),
    ):
        file = root.add_argument(short, f"--root-{verb}-from", metavar="FILE", help=text)
        completed(file, "files")
    parser.add_argument("--no-root", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--help-classes", action="store_true", help="list classes")
    return run(parser, _run, argv)


def _add_kind(parser: argparse.ArgumentParser) -> None:
    kind = parser.add_mutually_exclusive_group()
    klass = kind.add_argument(
        "-C", "--class", dest="klass", metavar="CLASS", help=f"default {_DEFAULT_CLASS}"
    )
    completed(klass, "classes")
    kind.add_argument(
        "--standalone", dest="klass", action="store_const", const="StandaloneVM",
        help="class StandaloneVM; with a template a copy of it without its private volume",
    )  # fmt: skip
    kind.add_argument(
        "--disp", action="store_true",
        help=f"class DispVM, label {_DISPOSABLE_LABEL} unless given",
    )  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    app = App()
    if arguments.help_classes:
        print("\n".join(app.classes()))
        return 0
    arguments.klass = arguments.klass or ("DispVM" if arguments.disp else _DEFAULT_CLASS)
    if arguments.label is None and arguments.disp:
        arguments.label = _DISPOSABLE_LABEL
    properties = pairs(arguments.property, "NAME=VALUE")
    pools = chosen_pools(arguments)
    image = arguments.root_copy_from or arguments.root_move_from
    _check(app, arguments, image)
    if arguments.klass == "StandaloneVM" and arguments.template:
        _clone_template(app, arguments, *pools)
    else:
        _create(arguments, *pools)
    qube = app.domains.known(arguments.name)
    code = _set_properties(qube, properties)
    if image is not None:
        code = _import_root(qube, Path(image), move=bool(arguments.root_move_from)) or code
    return code


def _check(app: App, arguments: argparse.Namespace, image: str | None) -> None:
    """Whether what is asked for can be meant.

    Raises:
        UsageError: it cannot.
    """
    if not arguments.name:
        raise UsageError("give the name of the new qube")
    names.check_new_name(arguments.name)
    labels = list(app.labels)
    if not arguments.label:
        raise UsageError(f"give a label, one of {', '.join(labels)}")
    if arguments.label not in labels:
        raise UsageError(f"no such label: {arguments.label!r}; there are {', '.join(labels)}")
    if arguments.klass not in (classes := app.classes()):
        raise UsageError(f"no such class: {arguments.klass!r}; there are {', '.join(classes)}")
    if image is None:
        return
    if arguments.klass in _ROOT_OF_TEMPLATE:
        raise UsageError(f"the root volume of a qube of class {arguments.klass} is its template's")
    if not os.path.isfile(image) and not Path(image).is_block_device():  # noqa: PTH113
        raise UsageError(f"there is no image file {image}")


def _create(arguments: argparse.Namespace, pool: str, pools: dict[str, str]) -> None:
    fields = [("name", arguments.name), ("label", arguments.label)]
    if pool:
        fields.append(("pool", pool))
    fields += [(f"pool:{volume}", where) for volume, where in pools.items()]
    method = "CreateInPool" if len(fields) > 2 else "Create"
    payload = " ".join(f"{key}={value}" for key, value in fields).encode()
    admin.ask_dom0(f"admin.vm.{method}.{arguments.klass}", arguments.template, payload)


def _clone_template(
    app: App, arguments: argparse.Namespace, pool: str, pools: dict[str, str]
) -> None:
    from insula.client.cloning import clone_qube  # noqa: PLC0415 - rarely wanted

    clone_qube(
        app,
        app.domains[arguments.template],
        arguments.name,
        klass=arguments.klass,
        label=arguments.label,
        pool=pool,
        pools=pools,
        ignore_volumes=("private",),
    )


def _set_properties(qube: Qube, properties: Sequence[tuple[str, str]]) -> int:
    """Set them all; the qube stays when one fails, and the exit code says so."""
    code = 0
    for key, value in properties:
        try:
            qube.set(key.replace("-", "_"), qube_value(key, value))
        except errors.DaemonNotRunningError:
            raise
        except errors.QubesException as error:
            show(error, f"qvm-create: error: {qube} was created, but not its property {key}: ")
            code = EXIT_PROPERTY_FAILED
    return code


def _import_root(qube: Qube, image: Path, *, move: bool) -> int:
    from insula.client.importing import import_volume  # noqa: PLC0415 - rarely wanted

    try:
        with image.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            import_volume(qube.name, "root", source, size)
        if move:
            image.unlink()
    except OSError as error:
        failure: ReportableError = ReportableError(f"{image}: {error.strerror}")
    except ReportableError as error:
        failure = error
    else:
        return 0
    show(failure, f"qvm-create: error: {qube} was created, but not its root volume imported: ")
    return EXIT_IMPORT_FAILED
