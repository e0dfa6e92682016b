"""Which qubes qvm-ls shows (qvm-tools.md section 3.4)."""

import argparse
from collections.abc import Callable, Sequence

from insula.client import errors
from insula.client.app import Qube
from insula.tools.command import UsageError, completed
from insula.tools.ls_columns import property_text

Filter = Callable[[Qube], bool]
_YES, _NO = ("y", "yes"), ("n", "no")
_TRUE = ("1", "true", "True")
_EMPTY = "''"  # quotes and all: the empty value, where nothing at all means that it is not set


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that filters() reads."""
    group = parser.add_argument_group("filters (give names of qubes before these)")

    def several(option: str, metavar: str, text: str, kind: str) -> None:
        action = group.add_argument(option, metavar=metavar, nargs="+", default=[], help=text)
        completed(action, kind)

    several("--class", "CLASS", "only these classes", "classes")
    several("--label", "LABEL", "only these labels", "labels")
    several("--tags", "TAG", "only those with one of these tags", "tags")
    several("--exclude-tags", "TAG", "only those with none of these tags", "tags")
    for state in ("running", "paused", "halted"):
        group.add_argument(f"--{state}", action="store_true", help=f"only {state} ones")
    several("--template-source", "TEMPLATE", "only those of one of these templates", "templates")
    several("--netvm-is", "NETVM", "only those behind one of these net qubes", "qubes")
    for feature in ("internal", "servicevm"):
        group.add_argument(
            f"--{feature}",
            choices=(*_YES, *_NO),
            help=f"only those that are, or are not, {feature}",
        )
    group.add_argument("--pending-update", action="store_true", help="only those to be updated")
    several("--features", "FEATURE=VALUE", "only those with these features", "features")
    several("--prefs", "PROPERTY=VALUE", "only those with these properties", "properties")


def filters(arguments: argparse.Namespace) -> list[Filter]:
    """What must hold of a qube that is to be shown.

    Raises:
        UsageError: a condition is not of the form NAME=VALUE.
    """
    given = vars(arguments)
    found: list[Filter] = []
    if classes := given["class"]:
        found.append(lambda qube: qube.klass in classes)
    for option, name in (
        ("label", "label"),
        ("template_source", "template"),
        ("netvm_is", "netvm"),
    ):
        if wanted := given[option]:
            found.append(_has_property(name, wanted))
    if tags := given["tags"]:
        found.append(lambda qube: any(tag in tags for tag in qube.tags))
    if excluded := given["exclude_tags"]:
        found.append(lambda qube: not any(tag in excluded for tag in qube.tags))
    if states := [state.title() for state in ("running", "paused", "halted") if given[state]]:
        found.append(lambda qube: qube.state in states)
    for feature in ("internal", "servicevm"):
        if given[feature] is not None:
            found.append(_is_marked(feature, given[feature] in _YES))
    if given["pending_update"]:
        found.append(lambda qube: bool(_feature(qube, "updates-available")))
    for name, value in _conditions(given["features"]):
        found.append(_equals(_feature, name, value))
    for name, value in _conditions(given["prefs"]):
        found.append(_equals(_property, name.replace("-", "_"), value))
    return found


def _has_property(name: str, wanted: Sequence[str]) -> Filter:
    return lambda qube: property_text(qube, name) in wanted


def _is_marked(feature: str, wanted: bool) -> Filter:
    return lambda qube: (_feature(qube, feature) in _TRUE) == wanted


def _equals(read: Callable[[Qube, str], str | None], name: str, value: str | None) -> Filter:
    return lambda qube: read(qube, name) == value


def _conditions(given: Sequence[str]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for word in given:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UsageError(f"{word!r} is not of the form NAME=VALUE")
        found.append((name, None if not value else "" if value == _EMPTY else value))
    return found


def _feature(qube: Qube, name: str) -> str | None:
    try:
        return qube.features[name]
    except errors.QubesFeatureNotFoundError:
        return None


def _property(qube: Qube, name: str) -> str | None:
    answer = qube.get_all().get(name)
    if answer is None or (not answer.value and answer.type != "str"):
        return None
    return answer.value
