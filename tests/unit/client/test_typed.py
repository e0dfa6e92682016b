"""Every property of the daemon's has its type in the client."""

import pytest

from insula.client import typed
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.properties.system_wide import GLOBAL

KINDS = {
    "bool": typed.Flag, "int": typed.Number, "str": typed.Text, "label": typed.Text,
    "vm": typed.Reference,
}  # fmt: skip
IN_LISTS = frozenset(("name", "uuid", "klass"))  # Qube has them without asking for properties
OF_QUBES = {
    name: prop.kind
    for table in BY_CLASS.values()
    for name, prop in table.items()
    if name not in IN_LISTS
}
OF_SYSTEM = {name: prop.kind for name, prop in GLOBAL.items()}


def kind_of(holder: type, name: str) -> object:
    return getattr(vars(holder)[name], "__orig_class__", None)


@pytest.mark.parametrize("name", sorted(OF_QUBES))
def test_of_qubes(name: str) -> None:
    assert kind_of(typed.QubeProperties, name) == KINDS[OF_QUBES[name]]


@pytest.mark.parametrize("name", sorted(OF_SYSTEM))
def test_of_the_system(name: str) -> None:
    assert kind_of(typed.SystemProperties, name) == KINDS[OF_SYSTEM[name]]


def test_there_is_no_property_that_the_daemon_does_not_have() -> None:
    named = {name for name in vars(typed.QubeProperties) if not name.startswith("_")}
    assert named <= set(OF_QUBES)
    named = {name for name in vars(typed.SystemProperties) if not name.startswith("_")}
    assert named <= set(OF_SYSTEM)
