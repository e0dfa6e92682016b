"""qvm-features, qvm-service and qvm-tags: what qubes are marked with."""

import argparse
from collections.abc import Sequence

from insula.client import errors
from insula.client.app import App, Qube
from insula.protocol.errors import ReportableError
from insula.tools import names
from insula.tools.command import Parser, UsageError, add_json, completed, print_json, run
from insula.tools.table import print_table

_SERVICE = "service."
_TRUE = ("1", "yes", "true", "on")
_FALSE = ("0", "no", "false", "off")
_LIST, _ADD, _DELETE = ("list", "ls", "l"), ("add", "a", "set"), ("del", "d", "unset", "u")


def features(argv: Sequence[str] | None = None) -> int:
    """qvm-features."""
    parser = Parser(
        "qvm-features",
        "Show and set features of a qube.",
        examples={
            "qvm-features work": "all that are set",
            "qvm-features work gui-emulated 1": "set one",
            "qvm-features work gui ''": "set one to the empty value, which is a no",
            "qvm-features --unset work gui": "leave it to the template and the system again",
        },
        exit_codes={1: "the feature is not set, or the daemon refuses"},
    )
    names.add_one(parser)
    feature = parser.add_argument(
        "feature", metavar="FEATURE", nargs="?", help="name of the feature"
    )
    completed(feature, "features")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="value to set, may be empty")
    _add_unset(parser)
    add_json(parser)
    return run(parser, _features, argv)


def service(argv: Sequence[str] | None = None) -> int:
    """qvm-service."""
    parser = Parser(
        "qvm-service",
        "Show and set which services run in a qube.",
        examples={
            "qvm-service work": "all that are switched on or off",
            "qvm-service --enable work cups": "let it start; same as: qvm-service work cups on",
            "qvm-service --default work cups": "leave it to the qube's own set-up again",
        },
        exit_codes={1: "the service is not set, or the daemon refuses"},
    )
    names.add_one(parser)
    name = parser.add_argument("service", metavar="SERVICE", nargs="?", help="name of the service")
    completed(name, "services")
    value = parser.add_argument("value", metavar="VALUE", nargs="?", help="on or off")
    completed(value, lambda _words: ("on", "off"))
    action = parser.add_mutually_exclusive_group()
    action.add_argument("-l", "--list", action="store_true", help="list services (the default)")
    action.add_argument("-e", "--enable", action="store_true", help="same as the value on")
    action.add_argument("-d", "--disable", action="store_true", help="same as the value off")
    _add_unset(action)
    add_json(parser)
    return run(parser, _service, argv)


def tags(argv: Sequence[str] | None = None) -> int:
    """qvm-tags."""
    parser = Parser(
        "qvm-tags",
        "Show, add and delete tags of a qube.",
        examples={
            "qvm-tags work": "all of them",
            "qvm-tags work add audio-listener": "give it one",
            "qvm-tags work list audio-listener && echo yes": "look for one",
        },
        exit_codes={1: "the tag looked for is not there, or the daemon refuses"},
    )
    names.add_one(parser)
    parser.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        default="list",
        choices=(*_LIST, *_ADD, *_DELETE),
        help="list [TAG] (the default; ls, l), add TAG... (a, set), del TAG (d, unset, u)",
    )
    tag = parser.add_argument("tags", metavar="TAG", nargs="*", help="name of a tag")
    completed(tag, "tags")
    add_json(parser)
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
        found = sorted(qube.features.items())
        print_json(dict(found)) if arguments.json else print_table(found)
    elif arguments.unset:
        _remove(qube, arguments.feature)
    elif arguments.value is not None:
        qube.features[arguments.feature] = arguments.value
    else:
        value = _own_feature(qube, arguments.feature)
        if arguments.json:
            print_json(value)
        elif value is not None:
            print(value)
        return 1 if value is None else 0
    return 0


def _service(arguments: argparse.Namespace) -> int:
    changes = arguments.enable or arguments.disable or arguments.unset
    if arguments.service is None and changes:
        raise UsageError("give the name of a service")
    if arguments.value is not None and (changes or arguments.list):
        raise UsageError("give a value or an option, not both")
    qube = names.find_one(App(), arguments)
    if arguments.service is None or arguments.list:
        _list_services(qube, as_json=arguments.json)
        return 0
    name = _SERVICE + arguments.service
    if arguments.unset:
        _remove(qube, name)
    elif changes or arguments.value is not None:
        qube.features[name] = "1" if arguments.enable or _is_on(arguments.value) else ""
    else:
        value = _own_feature(qube, name)
        if arguments.json:
            print_json(None if value is None else bool(value))
        elif value is not None:
            print(_on_or_off(value))
        return 1 if value is None else 0
    return 0


def _list_services(qube: Qube, *, as_json: bool) -> None:
    found = {
        name.removeprefix(_SERVICE): qube.features[name]
        for name in sorted(qube.features)
        if name.startswith(_SERVICE)
    }
    if as_json:
        print_json({name: bool(value) for name, value in found.items()})
    else:
        print_table([(name, _on_or_off(value)) for name, value in found.items()])


def _on_or_off(value: str) -> str:
    return "on" if value else "off"


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
    if arguments.json:
        print_json(found)
    else:
        for tag in found:
            print(tag)
    return 0 if found or not given else 1
