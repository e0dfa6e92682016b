"""qvm-features, qvm-service and qvm-tags: what qubes are marked with."""

import argparse
from collections.abc import Sequence

from insula.client import errors
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, UsageError, run
from insula.tools.table import print_table

_SERVICE = "service."
_TRUE = ("1", "yes", "true", "on")
_FALSE = ("0", "no", "false", "off")
_LIST, _ADD, _DELETE = ("list", "ls", "l"), ("add", "a", "set"), ("del", "d", "unset", "u")


def features(argv: Sequence[str] | None = None) -> int:
    """qvm-features."""
    parser = Parser("qvm-features", "Show and set features of a qube.")
    names.add_one(parser)
    parser.add_argument("feature", metavar="FEATURE", nargs="?", help="name of the feature")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="value to set, may be empty")
    _add_unset(parser)
    return run(parser, _features, argv)


def service(argv: Sequence[str] | None = None) -> int:
    """qvm-service."""
    parser = Parser("qvm-service", "Show and set which services run in a qube.")
    names.add_one(parser)
    parser.add_argument("service", metavar="SERVICE", nargs="?", help="name of the service")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="on or off")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("-l", "--list", action="store_true", help="list services (the default)")
    action.add_argument("-e", "--enable", action="store_true", help="same as the value on")
    action.add_argument("-d", "--disable", action="store_true", help="same as the value off")
    _add_unset(action)
    return run(parser, _service, argv)


def tags(argv: Sequence[str] | None = None) -> int:
    """qvm-tags."""
    parser = Parser("qvm-tags", "Show, add and delete tags of a qube.")
    names.add_one(parser)
    parser.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        default="list",
        choices=(*_LIST, *_ADD, *_DELETE),
        help="list [TAG] (the default), add TAG..., del TAG",
    )
    parser.add_argument("tags", metavar="TAG", nargs="*", help="name of a tag")
    return run(parser, _tags, argv)


def _add_unset(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "-D", "--unset", "--default", "--delete", action="store_true", help="take it away"
    )


def _features(arguments: argparse.Namespace) -> int:
    if arguments.unset and (arguments.feature is None or arguments.value is not None):
        raise UsageError("--unset goes with a feature and no value")
    qube = names.find_one(App(), arguments)
    if arguments.feature is None:
        print_table(sorted(qube.features.items()))
    elif arguments.unset:
        _remove(qube, arguments.feature)
    elif arguments.value is not None:
        qube.features[arguments.feature] = arguments.value
    else:
        value = _own_feature(qube, arguments.feature)
        if value is None:
            return 1
        print(value)
    return 0


def _service(arguments: argparse.Namespace) -> int:
    changes = arguments.enable or arguments.disable or arguments.unset
    if arguments.service is None and changes:
        raise UsageError("give the name of a service")
    if arguments.value is not None and (changes or arguments.list):
        raise UsageError("give a value or an option, not both")
    qube = names.find_one(App(), arguments)
    if arguments.service is None or arguments.list:
        print_table(
            [
                (name.removeprefix(_SERVICE), "on" if value else "off")
                for name, value in sorted(qube.features.items())
                if name.startswith(_SERVICE)
            ]
        )
        return 0
    name = _SERVICE + arguments.service
    if arguments.unset:
        _remove(qube, name)
    elif changes or arguments.value is not None:
        qube.features[name] = "1" if arguments.enable or _is_on(arguments.value) else ""
    else:
        value = _own_feature(qube, name)
        if value is None:
            return 1
        print("on" if value else "off")
    return 0


def _is_on(value: str | None) -> bool:
    if value is None or value.lower() in _FALSE:
        return False
    if value.lower() in _TRUE:
        return True
    raise ReportableError(f"neither on nor off: {value!r}")


def _own_feature(qube: Qube, name: str) -> str | None:
    try:
        return qube.features[name]
    except errors.QubesFeatureNotFoundError:
        return None


def _remove(qube: Qube, name: str) -> None:
    qube.features.pop(name, None)


def _tags(arguments: argparse.Namespace) -> int:
    given = arguments.tags
    listing = arguments.action in _LIST
    if len(given) > 1 and arguments.action not in _ADD:
        raise UsageError("give one tag")
    if not listing and not given:
        raise UsageError("give a tag")
    qube = names.find_one(App(), arguments)
    if not listing:
        change = qube.tags.add if arguments.action in _ADD else qube.tags.discard
        for tag in given:
            change(tag)
        return 0
    found = sorted(qube.tags) if not given else [tag for tag in given if tag in qube.tags]
    for tag in found:
        print(tag)
    return 0 if found or not given else 1
