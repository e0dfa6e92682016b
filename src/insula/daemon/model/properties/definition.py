"""What a property is: its type, whom it belongs to, what it accepts and what it defaults to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple
from uuid import UUID

from insula.daemon.model.qube import Qube, Value
from insula.daemon.model.system import System

Kind = Literal["str", "int", "bool", "vm", "label"]
# A system property has no qube; its functions get dom0.
Compute = Callable[[System, Qube], Value]
Parse = Callable[[System, Qube, str], Value]
Check = Callable[[System, Qube, Value], None]


class Access(Enum):
    """Who may set it: anybody, whoever makes the qube, or nobody because it is computed."""

    SETTABLE = "settable"
    WRITE_ONCE = "write once"
    READ_ONLY = "read only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One property. default: None when there is none, which is not a default of none.

    parse raises ValueRefusedError. check refuses a value, also the default on a reset, for what
    else the system holds. resettable: whether its explicit value may be taken away.
    """

    name: str
    kind: Kind
    help: str
    access: Access = Access.SETTABLE
    default: Compute | None = None
    parse: Parse
    check: Check | None = None
    resettable: bool = True

    @property
    def stage(self) -> int:
        """Load stage, which orders listings (admin-api.md section 3.2)."""
        late = self.kind == "vm" or self.name in (
            "bootmode",
            "kernelopts",
            "appvm_default_bootmode",
        )
        return 4 if late else 3 if self.name not in _FIRST else 2


_FIRST = frozenset(("name", "qid", "uuid", "label", "klass"))


class Held(NamedTuple):
    """What a property is: on its default or not, whether it has a value, be it none, and which."""

    is_default: bool
    exists: bool
    value: Value


def held(system: System, qube: Qube, prop: Property, own: Mapping[str, Value]) -> Held:
    """A property as it is; own: what was set on its holder."""
    if prop.access is not Access.READ_ONLY and prop.name in own:
        return Held(False, True, own[prop.name])
    if prop.default is None:
        return Held(True, False, None)
    return Held(True, True, prop.default(system, qube))


def text_of(system: System, value: Value) -> str:
    """A value as answers spell it; none is empty."""
    if isinstance(value, UUID):
        referred = system.find(value)
        return "" if referred is None else referred.name
    return "" if value is None else str(value)


def shown(system: System, value: Value) -> str:
    """A value as events spell it, where none is None."""
    return "None" if value is None else text_of(system, value)
