"""qvm-prefs and qubes-prefs: properties of a qube and of the system."""

import argparse
from collections.abc import Sequence

from insula.client import errors
from insula.client.app import App, Holder
from insula.protocol.admin import PropertyAnswer
from insula.tools import names
from insula.tools.command import Parser, UsageError, add_json, completed, print_json, run

# Where "none" means no qube; no qube can have that name.
_NONE_IS_NO_QUBE = frozenset(("default_dispvm", "netvm", "template", "guivm", "audiovm"))
_WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    """qvm-prefs."""
    parser = Parser(
        "qvm-prefs",
        "Show and set properties of a qube.",
        examples={
            "qvm-prefs work": "all properties; the flag is D for a default, - for one that is set",
            "qvm-prefs work netvm sys-firewall": "set one; none means no qube",
            "qvm-prefs --default work netvm": "set it back to its default",
        },
        exit_codes={1: "the daemon refuses", 2: "there is no such property, or a usage error"},
    )
    qube = parser.add_argument("qube", metavar="VMNAME", nargs="?", help="name of the qube")
    completed(qube, "qubes")
    _add_options(parser, "properties")
    return run(parser, _qube, argv)


def system(argv: Sequence[str] | None = None) -> int:
    """qubes-prefs."""
    parser = Parser(
        "qubes-prefs",
        "Show and set properties of the system.",
        examples={"qubes-prefs default_netvm sys-firewall": "set the net qube of new qubes"},
        exit_codes={1: "the daemon refuses", 2: "there is no such property, or a usage error"},
    )
    _add_options(parser, "system-properties")
    return run(parser, lambda arguments: _run(App(), arguments), argv)


def qube_value(name: str, text: str) -> str:
    """What a value on a command line is to the daemon."""
    return "" if name in _NONE_IS_NO_QUBE and text.lower() == "none" else text


def _add_options(parser: argparse.ArgumentParser, kind: str) -> None:
    name = parser.add_argument(
        "property", metavar="PROPERTY", nargs="?", help="name of the property"
    )
    completed(name, kind)
    value = parser.add_argument("value", metavar="VALUE", nargs="?", help="value to set")
    completed(value, "values")
    parser.add_argument("--help-properties", action="store_true", help="explain all properties")
    parser.add_argument("--hide-default", action="store_true", help="leave out defaults")
    parser.add_argument("-D", "--default", action="store_true", help="set it back to its default")
    parser.add_argument(
        "-g", "--get", "-s", "--set", action="store_true", help=argparse.SUPPRESS, dest="ignored"
    )
    add_json(parser)


def _qube(arguments: argparse.Namespace) -> int:
    app = App()
    if arguments.help_properties and arguments.qube is None:
        # One qube of each class has all properties that there are.
        return _explain(*{qube.klass: qube for qube in app.domains}.values())
    if arguments.qube is None:
        raise UsageError("give the name of a qube")
    return _run(names.find_one(app, arguments), arguments)


def _run(holder: Holder, arguments: argparse.Namespace) -> int:
    if arguments.help_properties:
        return _explain(holder)
    if arguments.property is None:
        if arguments.default:
            raise UsageError("--default goes with a property")
        _list(holder, arguments)
        return 0
    name = arguments.property.replace("-", "_")
    if not name.isidentifier():  # It could not even be asked for.
        raise UsageError(f"no such property: {arguments.property!r}")
    try:
        if arguments.value is not None:
            holder.set(name, qube_value(name, arguments.value))
        elif arguments.default:
            holder.reset(name)
        else:
            _show(holder.get(name), arguments)
    except errors.QubesNoSuchPropertyError:
        raise UsageError(f"no such property: {arguments.property!r}") from None
    return 0


def _list(holder: Holder, arguments: argparse.Namespace) -> None:
    answers = sorted(holder.get_all().items())
    width = max((len(name) for name, _ in answers), default=0)
    shown = [one for one in answers if not (arguments.hide_default and one[1].is_default)]
    if arguments.json:
        print_json({name: _for_programs(answer) for name, answer in shown})
        return
    for name, answer in shown:
        print(f"{name:<{width}}  {_flag_and_value(answer)}")


def _for_programs(answer: PropertyAnswer) -> dict[str, object]:
    value: object = answer.value
    if not answer.value and answer.type != "str":
        value = None
    elif answer.type == "bool":
        value = answer.value == "True"
    elif answer.type == "int":
        value = int(answer.value)
    return {"value": value, "type": answer.type, "is_default": answer.is_default}


def _flag_and_value(answer: PropertyAnswer) -> str:
    if not answer.value and answer.type in ("bool", "int"):
        return "U"
    value = "None" if not answer.value and answer.type in ("vm", "label") else answer.value
    return f"{'D' if answer.is_default else '-'}  {value}"


def _show(answer: PropertyAnswer, arguments: argparse.Namespace) -> None:
    if arguments.hide_default and answer.is_default:
        return
    if arguments.json:
        print_json(_for_programs(answer))
    elif answer.value or answer.type == "str":
        print(answer.value)


def _explain(*holders: Holder) -> int:
    from textwrap import fill  # noqa: PLC0415 - only for this

    explained: dict[str, str] = {}
    for holder in holders:
        for name in holder.property_names():
            if name not in explained:
                explained[name] = holder.help(name)
    for name, text in sorted(explained.items()):
        print(fill(f"{name}: {text}", _WIDTH, initial_indent="  ", subsequent_indent="  "))
    return 0
