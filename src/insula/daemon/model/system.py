"""The whole system: its qubes, labels and settings, and how one is found from another. No I/O."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from insula.daemon.model.errors import LabelNotFoundError, QubeNotFoundError, ValueRefusedError
from insula.daemon.model.labels import BUILT_IN, Label
from insula.daemon.model.pools import Pool, built_in_pools
from insula.daemon.model.qube import DOM0_UUID, MAXIMUM_QID, Qube, QubeClass, Value

_LONGEST_CHAIN = 64  # qubes; templates and netvms refer to each other without loops


class KernelOptions(Protocol):
    """What kernels bring along, by their names and whether there are devices of PCI."""

    def get(self, key: tuple[str, bool], /) -> str | None: ...


@dataclass(slots=True, kw_only=True)
class System:
    """host_memory: MiB. kernels: names of those installed. properties: those that were set.

    kernel_options: what a kernel wants on its command line, of its own, with devices of the host's
    PCI bus (True) and without.

    Qubes come and go by add and remove alone.
    """

    qubes: dict[UUID, Qube] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=lambda: {one.name: one for one in BUILT_IN})
    pools: dict[str, Pool] = field(default_factory=built_in_pools)
    properties: dict[str, Value] = field(default_factory=dict)
    kernels: Collection[str] = frozenset()
    kernel_options: KernelOptions = field(default_factory=dict[tuple[str, bool], str])
    host_memory: int = 0
    _named: dict[str, Qube] = field(init=False)

    def __post_init__(self) -> None:
        self._named = {qube.name: qube for qube in self.qubes.values()}

    @property
    def dom0(self) -> Qube:
        return self.qubes[DOM0_UUID]

    def add(self, qube: Qube) -> None:
        """Let there be another qube; its name must be free."""
        self.qubes[qube.uuid] = qube
        self._named[qube.name] = qube

    def remove(self, qube: Qube) -> None:
        """Let there be one qube less."""
        del self.qubes[qube.uuid], self._named[qube.name]

    def has_name(self, name: str) -> bool:
        """Whether a qube has that name."""
        return name in self._named

    def named(self, name: str) -> Qube:
        """The qube of a name.

        Raises:
            QubeNotFoundError: there is none.
        """
        found = self._named.get(name)
        if found is None:
            raise QubeNotFoundError(name)
        return found

    def find(self, uuid: UUID | None) -> Qube | None:
        return None if uuid is None else self.qubes.get(uuid)

    def in_order(self) -> list[Qube]:
        """All qubes, dom0 first, then by name."""
        return sorted(self.qubes.values(), key=lambda qube: (qube.uuid != DOM0_UUID, qube.name))

    def templates_of(self, qube: Qube) -> Iterator[Qube]:
        """A qube's template, that one's template, and so on."""
        found = self.find(qube.template)
        for _ in range(_LONGEST_CHAIN):
            if found is None:
                return
            yield found
            found = self.find(found.template)

    def root_template(self, qube: Qube) -> Qube:
        """The qube whose root a qube's root is made from: itself where it has its own.

        Raises:
            ValueRefusedError: its template is gone.
        """
        for one in (qube, *self.templates_of(qube)):
            if one.klass.has_own_root:
                return one
        raise ValueRefusedError(f"Qube {qube.name} has no template any more")

    def made_from(self, template: Qube) -> list[Qube]:
        """Qubes whose template is this one."""
        return [qube for qube in self.qubes.values() if qube.template == template.uuid]

    def feature(self, qube: Qube, name: str, default: str | None = None) -> str | None:
        """A feature of a qube or, where it is not set there, of its templates."""
        for one in (qube, *self.templates_of(qube)):
            if name in one.features:
                return one.features[name]
        return default

    def label(self, text: str) -> Label:
        """A label by name or index.

        Raises:
            LabelNotFoundError: there is none.
        """
        if text in self.labels:
            return self.labels[text]
        index = text.lstrip("0")
        for label in self.labels.values():
            if str(label.index) == index:
                return label
        raise LabelNotFoundError(text, ", ".join(self.labels))

    def free_qid(self) -> int:
        """The lowest number that no qube has.

        Raises:
            ValueRefusedError: there is none.
        """
        taken = {qube.qid for qube in self.qubes.values()}
        for qid in range(1, MAXIMUM_QID + 1):
            if qid not in taken:
                return qid
        raise ValueRefusedError(f"There are {MAXIMUM_QID} qubes already")


def new_dom0() -> Qube:
    """The admin domain as every system has it."""
    return Qube(uuid=DOM0_UUID, qid=0, name="dom0", klass=QubeClass.ADMIN, label="black")
