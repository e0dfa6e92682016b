"""A change of a system in the making: what it touches, and the events that will tell of it."""

from dataclasses import dataclass, field
from uuid import UUID

from insula.daemon.model.assignments import Assignment
from insula.daemon.model.labels import Label
from insula.daemon.model.pools import Pool
from insula.daemon.model.qube import Qube, Value
from insula.daemon.model.system import System
from insula.daemon.model.volume import Volume
from insula.protocol.admin import Event


def event(qube: Qube | None, name: str, /, **fields: object) -> Event:
    """An event about a qube, or about the system."""
    subject = "" if qube is None else qube.name
    return Event(subject, name, {key: str(value) for key, value in fields.items()})


@dataclass(slots=True)
class Edit:
    """All that changes together: whoever makes it keeps it as a whole, or calls undo.

    events: what is to be told, once it is kept, in that order.
    """

    system: System
    events: list[Event] = field(default_factory=list)
    _touched: dict[UUID, tuple[Qube, "_Before"]] = field(default_factory=dict)
    _added: list[Qube] = field(default_factory=list)
    _removed: list[Qube] = field(default_factory=list)
    _settings: dict[str, Value] | None = None
    _pools: dict[str, Pool] | None = None
    _labels: dict[str, Label] | None = None

    def tell(self, qube: Qube | None, name: str, /, **fields: object) -> None:
        """Have an event told."""
        self.events.append(event(qube, name, **fields))

    def touch(self, qube: Qube) -> Qube:
        """A qube that is about to be changed."""
        if qube.uuid not in self._touched:
            self._touched[qube.uuid] = qube, _Before.of(qube)
        return qube

    def touch_settings(self) -> dict[str, Value]:
        """The system's properties, which are about to be changed."""
        if self._settings is None:
            self._settings = dict(self.system.properties)
        return self.system.properties

    def touch_pools(self) -> dict[str, Pool]:
        """The system's pools, which are about to be changed."""
        if self._pools is None:
            self._pools = dict(self.system.pools)
        return self.system.pools

    def touch_labels(self) -> dict[str, Label]:
        """The system's labels, which are about to be changed."""
        if self._labels is None:
            self._labels = dict(self.system.labels)
        return self.system.labels

    def add(self, qube: Qube) -> None:
        """Let there be another qube."""
        self.system.add(qube)
        self._added.append(qube)

    def remove(self, qube: Qube) -> None:
        """Let there be one qube less; devices of it are nobody's from now on."""
        for other in self.system.qubes.values():
            lost = [one for one in other.assignments if one.backend == qube.uuid]
            if lost and other is not qube:
                kept = tuple(one for one in other.assignments if one not in lost)
                self.touch(other).assignments = kept
            for one in lost:
                device = f"{qube.name}:{one.port}:{one.device_id}"
                self.tell(other, f"device-unassign:{one.devclass}", device=device)
        self.system.remove(qube)
        self._removed.append(qube)

    @property
    def removed(self) -> tuple[Qube, ...]:
        """Qubes that are no more."""
        return tuple(self._removed)

    @property
    def changed(self) -> tuple[Qube, ...]:
        """Qubes that are new or may be other than they were."""
        found = {qube.uuid: qube for qube, _ in self._touched.values()}
        found.update((qube.uuid, qube) for qube in self._added)
        gone = {qube.uuid for qube in self._removed}
        return tuple(qube for uuid, qube in found.items() if uuid not in gone)

    @property
    def settings(self) -> dict[str, Value]:
        """Properties of the system that were given a value."""
        if self._settings is None:
            return {}
        before = self._settings
        return {
            name: value
            for name, value in self.system.properties.items()
            if name not in before or before[name] != value
        }

    @property
    def settings_dropped(self) -> tuple[str, ...]:
        """Properties of the system that are on their default again."""
        return tuple(name for name in self._settings or () if name not in self.system.properties)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Pools that are new or other than they were."""
        if self._pools is None:
            return ()
        before = self._pools
        return tuple(pool for pool in self.system.pools.values() if before.get(pool.name) != pool)

    @property
    def pools_dropped(self) -> tuple[str, ...]:
        """Names of pools that are no more."""
        return tuple(name for name in self._pools or () if name not in self.system.pools)

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels that are new."""
        before = self.system.labels if self._labels is None else self._labels
        return tuple(one for name, one in self.system.labels.items() if name not in before)

    @property
    def labels_dropped(self) -> tuple[str, ...]:
        """Names of labels that are no more."""
        return tuple(name for name in self._labels or () if name not in self.system.labels)

    def undo(self) -> None:
        """Put everything back as it was."""
        for qube in self._added:
            self.system.remove(qube)
        for qube in self._removed:
            self.system.add(qube)
        for qube, before in self._touched.values():
            before.restore(qube)
        if self._settings is not None:
            self.system.properties = self._settings
        if self._pools is not None:
            self.system.pools = self._pools
        if self._labels is not None:
            self.system.labels = self._labels


@dataclass(frozen=True, slots=True)
class _Before:
    label: str
    properties: dict[str, Value]
    features: dict[str, str]
    tags: set[str]
    volumes: dict[str, Volume]
    notes: str
    firewall: tuple[str, ...] | None
    assignments: tuple[Assignment, ...]

    @classmethod
    def of(cls, qube: Qube) -> "_Before":
        return cls(
            qube.label,
            dict(qube.properties),
            dict(qube.features),
            set(qube.tags),
            dict(qube.volumes),
            qube.notes,
            qube.firewall,
            qube.assignments,
        )

    def restore(self, qube: Qube) -> None:
        qube.label, qube.properties, qube.features = self.label, self.properties, self.features
        qube.tags, qube.volumes = self.tags, self.volumes
        qube.notes, qube.firewall = self.notes, self.firewall
        qube.assignments = self.assignments
