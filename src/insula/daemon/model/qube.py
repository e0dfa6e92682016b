"""A qube as it is administered, whatever it is doing. No I/O."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from insula.daemon.model.assignments import Assignment
from insula.daemon.model.errors import ValueRefusedError
from insula.daemon.model.volume import Volume

DOM0_UUID = UUID(int=0)
MAXIMUM_QID = 9999
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}", re.ASCII)
_RESERVED = frozenset(("Domain-0", "none", "default"))

# What a property holds when it was set: references to qubes are UUIDs, none and unset are None.
Value = str | int | bool | UUID | None


class QubeClass(StrEnum):
    """Classes by their Admin API names."""

    ADMIN = "AdminVM"
    APP = "AppVM"
    DISPOSABLE = "DispVM"
    REMOTE = "RemoteVM"
    STANDALONE = "StandaloneVM"
    TEMPLATE = "TemplateVM"

    @property
    def has_own_root(self) -> bool:
        """Whether software is installed in such a qube itself."""
        return self in (QubeClass.TEMPLATE, QubeClass.STANDALONE)

    @property
    def is_machine(self) -> bool:
        """Whether such a qube is a virtual machine of this system's."""
        return self not in (QubeClass.ADMIN, QubeClass.REMOTE)


class PowerState(StrEnum):
    """States by their Admin API names (admin-api.md section 8.1)."""

    HALTED = "Halted"
    TRANSIENT = "Transient"
    RUNNING = "Running"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    HALTING = "Halting"
    CRASHED = "Crashed"


@dataclass(slots=True, kw_only=True)
class Qube:
    """One qube.

    properties: those that were set, by name. notes: what a person wrote down of it. firewall:
    its rules, as they are printed; None: it never had any set. assignments: devices
    that are to be its. fleeting: a disposable that is
    nobody's once the call it was made for is over. power, xid and started (seconds since the
    epoch) are what it does now; they are not stored with it.
    """

    uuid: UUID
    qid: int
    name: str
    klass: QubeClass
    label: str
    properties: dict[str, Value] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    volumes: dict[str, Volume] = field(default_factory=dict)
    notes: str = ""
    firewall: tuple[str, ...] | None = None
    assignments: tuple[Assignment, ...] = ()
    fleeting: bool = False
    power: PowerState = PowerState.HALTED
    xid: int = -1
    started: float | None = None

    @property
    def template(self) -> UUID | None:
        """What it is made from: an AppVM's template, a disposable's disposable template."""
        found = self.properties.get("template")
        return found if isinstance(found, UUID) else None

    @property
    def halted(self) -> bool:
        return self.power is PowerState.HALTED

    @property
    def standing_still(self) -> bool:
        """Whether it runs, and yet does nothing."""
        return self.power in (PowerState.PAUSED, PowerState.SUSPENDED)

    def to_json(self) -> dict[str, Any]:
        """All that is stored, as JSON values."""
        return {
            "uuid": str(self.uuid),
            "qid": self.qid,
            "name": self.name,
            "class": str(self.klass),
            "label": self.label,
            "properties": {
                name: {"qube": str(value)} if isinstance(value, UUID) else value
                for name, value in self.properties.items()
            },
            "features": self.features,
            "tags": sorted(self.tags),
            "volumes": {name: volume.to_json() for name, volume in self.volumes.items()},
            "notes": self.notes,
            "firewall": self.firewall,
            "assignments": [one.to_json() for one in self.assignments],
            "fleeting": self.fleeting,
        }

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Qube":
        """What to_json wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            uuid=UUID(loaded["uuid"]),
            qid=loaded["qid"],
            name=loaded["name"],
            klass=QubeClass(loaded["class"]),
            label=loaded["label"],
            properties={
                name: UUID(value["qube"]) if isinstance(value, dict) else value
                for name, value in loaded["properties"].items()
            },
            features=dict(loaded["features"]),
            tags=set(loaded["tags"]),
            volumes={name: Volume.from_json(volume) for name, volume in loaded["volumes"].items()},
            notes=loaded.get("notes", ""),
            firewall=None if (rules := loaded.get("firewall")) is None else tuple(rules),
            assignments=tuple(map(Assignment.from_json, loaded.get("assignments", ()))),
            fleeting=loaded.get("fleeting", False),
        )


def check_name(name: str) -> str:
    """A name that a qube may have (admin-api.md section 3.4).

    Raises:
        ValueRefusedError: it is none.
    """
    if _NAME.fullmatch(name) is None or name in _RESERVED or name.endswith("-dm"):
        raise ValueRefusedError(
            f"Not a name for a qube: {name!r}. It begins with a letter, goes on with letters, "
            "digits, '_', '.' and '-', and has at most 31 characters"
        )
    return name
