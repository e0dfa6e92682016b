"""A description of the system as it is."""

import tomllib
from typing import Any

from insula.client.app import App
from insula.protocol.admin import PropertyAnswer
from insula.tools.apply.description import SERVICE
from insula.tools.apply.found import BARE, Found, FoundQube

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def export(app: App) -> str:
    """The text of a description; what is on its default is left out."""
    import tomli_w  # noqa: PLC0415 - only where it is needed

    found = Found(app)
    described: dict[str, Any] = {}
    if labels := found.own_labels():
        described["labels"] = labels
    system = {name: one for name, one in found.system.items() if not one.is_default}
    if system:
        described["system"] = {name: _value(one) for name, one in sorted(system.items())}
    qubes = {}
    for name, one in found.qubes.items():
        if not one.is_passing and (table := _qube(one)) is not None:
            qubes[name] = table
    described["qubes"] = qubes
    text = tomli_w.dumps(described, multiline_strings=True)
    if tomllib.loads(text) != described:
        # Texts over several lines cannot hold every line's end as it is.
        text = tomli_w.dumps(described)
    return text


def _qube(one: FoundQube) -> dict[str, Any] | None:
    table: dict[str, Any] = {}
    if one.klass != "AdminVM":
        table = {"class": one.klass, "label": one.label}
        if one.template:
            table["template"] = one.template
    if one.tags:
        table["tags"] = sorted(one.tags)
    if one.notes:
        table["notes"] = one.notes
    if one.klass not in BARE and not one.has_default_firewall:
        table["firewall"] = [str(rule) for rule in one.firewall]
    if own := one.own:
        table["properties"] = {name: _value(answer) for name, answer in sorted(own.items())}
    features, services = _features(one)
    if features:
        table["features"] = features
    if services:
        table["services"] = services
    if sizes := one.sizes:
        table["volumes"] = {name: _size(size) for name, size in sorted(sizes.items())}
    return table or None


def _features(one: FoundQube) -> tuple[dict[str, str], dict[str, bool]]:
    features, services = {}, {}
    for name, value in sorted(one.features.items()):
        if name.startswith(SERVICE) and value in ("", "1"):
            services[name.removeprefix(SERVICE)] = value == "1"
        else:
            features[name] = value
    return features, services


def _value(answer: PropertyAnswer) -> str | int | bool:
    match answer.type:
        case "bool":
            return answer.value == "True"
        case "int":
            return int(answer.value)
    return answer.value


def _size(size: int) -> str | int:
    for unit, factor in _UNITS:
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return size
