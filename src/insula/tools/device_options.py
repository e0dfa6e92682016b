"""The command line of qvm-device and of qvm-CLASS (qvm-tools.md section 6.1)."""

import argparse
from typing import TypeAlias

from insula.tools import names
from insula.tools.command import Parser, add_json, completed

PROGRAM = "qvm-device"
CLASSES_OPTION = "--list-device-classes"
_Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def build_parser(devclass: str | None) -> Parser:
    program = PROGRAM if devclass is None else f"qvm-{devclass}"
    kind = "devices" if devclass is None else f"{devclass} devices"
    begun = program if devclass else f"{program} block"
    parser = Parser(
        program,
        f"Look at {kind}, give them to qubes and take them away. Without an action they are "
        "listed.",
        default_command="list",
        allow_abbrev=False,
        examples={
            begun: "what there is, and who has it",
            f"{begun} attach work sys-usb:sda": "give it to a running qube",
            f"{begun} assign --ask work sys-usb:sda": "from now on, after asking",
            f"{begun} list -s work": "what a qube has and is to have",
        },
        notes=(
            "A device is BACKEND:PORT or BACKEND:PORT:ID. Without an ID it is what is plugged in "
            "there now; * stands for any port, or any device.",
            "attach lasts until the qube ends; assign is kept, and is for each start or each time "
            "that the device appears.",
        ),
    )
    parser.add_argument(
        CLASSES_OPTION, action="store_true", help="list the classes of devices, and do no more"
    )
    if devclass is None:
        which = parser.add_argument("devclass", metavar="CLASS", help="class of devices")
        completed(which, "device-classes")
    else:
        parser.set_defaults(devclass=devclass)
    actions = parser.add_commands(metavar="ACTION")
    _add_readers(actions)
    _add_changes(actions)
    return parser


def _add_readers(actions: _Actions) -> None:
    add = actions.add_parser("list", aliases=("ls", "l"), help="list devices", allow_abbrev=False)
    names.add_several(add)
    add.add_argument("-s", "--assignments", action="store_true", help="assignments, too")
    add.add_argument(
        "--with-sbdf", "--resolve-paths", action="store_true", help="pci: their addresses, too"
    )
    add_json(add)
    add.set_defaults(action="list")
    add = actions.add_parser("info", aliases=("i",), help="show a device", allow_abbrev=False)
    _add_device(add, nargs="?")
    add.set_defaults(action="info")


def _add_changes(actions: _Actions) -> None:
    def command(name: str, *aliases: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, aliases=aliases, help=text, allow_abbrev=False)

    add = command("attach", "at", "a", text="give a device to a running qube")
    _add_options(add)
    add.add_argument(
        "-p", "--persistent", action="store_true", help="and assign it, required at each start"
    )
    _add_qube_and_device(add, nargs=None)
    add.set_defaults(action="attach")
    add = command("detach", "d", "dt", text="take a device, or all, away from a qube")
    _add_qube_and_device(add, nargs="?")
    add.set_defaults(action="detach")
    add = command("assign", "s", text="let a device be a qube's from now on")
    _add_options(add)
    mode = add.add_mutually_exclusive_group()
    mode.add_argument(
        "-r", "--required", action="store_true", help="the qube does not start without it"
    )
    mode.add_argument("--ask", "--ask-to-attach", action="store_true", help="ask each time")
    _add_parts(add)
    _add_qube_and_device(add, nargs=None)
    add.set_defaults(action="assign")
    add = command("unassign", "u", text="let a device, or all, be a qube's no more")
    _add_parts(add)
    _add_qube_and_device(add, nargs="?")
    add.set_defaults(action="unassign")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--option", metavar="NAME=VALUE", action="append", default=[],
        help="option of the device; may be repeated",
    )  # fmt: skip
    parser.add_argument("--ro", action="store_true", help="read-only")


def _add_parts(parser: argparse.ArgumentParser) -> None:
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--port", "--only-port", action="store_true", help="whatever is plugged in there"
    )
    part.add_argument(
        "--device", "--only-device", action="store_true", help="wherever it is plugged in"
    )


def _add_qube_and_device(parser: argparse.ArgumentParser, nargs: str | None) -> None:
    names.add_one(parser)
    _add_device(parser, nargs)


def _add_device(parser: argparse.ArgumentParser, nargs: str | None) -> None:
    device = parser.add_argument(
        "name", metavar="BACKEND:PORT[:ID]", nargs=nargs, help="the device"
    )
    completed(device, "devices")
