"""Volumes as the store keeps them: which layers make up which state. No I/O."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from insula.daemon.model.pools import POOL

GIB = 1 << 30
ROOT_SIZE = 10 * GIB  # bytes, as the two below: admin-api.md section 9.2
PRIVATE_SIZE = 2 * GIB
VOLATILE_SIZE = 10 * GIB
MAXIMUM_SIZE = 4096 * GIB
# revisions_to_keep: what is written is for nobody else while it is being written.
IN_PLACE = -1
_SIZE_STEP = 512  # bytes: a disk is a whole number of sectors

_VOLUME_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}", re.ASCII)
_LAYER_NAME = re.compile(r"[1-9][0-9]{0,15}(-[1-9][0-9]{0,15})?\.(qcow2|raw)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Revision:
    """A former state of a volume, to which it can be reverted.

    created: seconds since the epoch. layers: file names, base first. size: bytes, None where an
    earlier version did not note it.
    """

    number: int
    created: float
    layers: tuple[str, ...]
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume of a qube; size in bytes, kinds as in admin-api.md section 9.1.

    layers: file names of the current state, base first, each written once and then only read; none
    is a blank volume. committed: when it was made, seconds since the epoch. revisions: the former
    states kept, oldest first; at most revisions_to_keep. number: the highest a layer was given.

    The work layer of a running qube is the file with the next number. So the store need not be told
    of a start: a file of that number is data of this state, whatever happened since; any other file
    that no state names is a leftover.
    """

    owner: UUID
    name: str
    size: int
    snap_on_start: bool = False
    save_on_stop: bool = False
    rw: bool = True
    revisions_to_keep: int = 1
    layers: tuple[str, ...] = ()
    committed: float = 0
    revisions: tuple[Revision, ...] = ()
    number: int = 0
    ephemeral: bool | None = None
    pool: str = POOL

    def __post_init__(self) -> None:
        if _VOLUME_NAME.fullmatch(self.name) is None:
            raise ValueError(f"a volume cannot be called {self.name!r}")
        if not 0 < self.size <= MAXIMUM_SIZE or self.size % _SIZE_STEP:
            raise ValueError(f"a volume cannot have {self.size} bytes")
        if self.snap_on_start and self.save_on_stop:
            raise ValueError(f"volume {self.name} cannot be both snap_on_start and save_on_stop")
        for layer in self.files - {self.work}:
            if _LAYER_NAME.fullmatch(layer) is None:
                raise ValueError(f"a layer cannot be called {layer!r}")

    @property
    def can_be_ephemeral(self) -> bool:
        """Whether nothing of it is wanted once its qube has ended."""
        return self.rw and not self.snap_on_start and not self.save_on_stop

    @property
    def is_ephemeral(self) -> bool:
        """Whether it is encrypted under a throw-away key: what is thrown away is in any case."""
        return self.can_be_ephemeral if self.ephemeral is None else self.ephemeral

    @property
    def in_place(self) -> bool:
        """Whether nobody else gets to see a state of it while it is being written."""
        return self.revisions_to_keep == IN_PLACE

    @property
    def persistent(self) -> bool:
        """Whether what a qube writes is there at its next start."""
        return self.save_on_stop and self.rw

    @property
    def state(self) -> str:
        """A name for the content of the current state, which merging of layers does not change."""
        return f"{self.owner}/{self.name}@{self.number}"

    @property
    def work(self) -> str:
        """File name of the layer that a running qube writes."""
        return f"{self.number + 1}.qcow2"

    @property
    def files(self) -> frozenset[str]:
        """Names of all files that may lie in the volume's directory."""
        kept = {layer for revision in self.revisions for layer in revision.layers}
        return frozenset({*kept, *self.layers, self.work})

    def advanced(self, layers: tuple[str, ...], now: float) -> "Volume":
        """This volume in a new state; the one before becomes a revision. Uses up one number."""
        revisions: tuple[Revision, ...] = ()
        if self.revisions_to_keep > 0:
            before = Revision(self.number, self.committed, self.layers, self.size)
            revisions = (*self.revisions, before)[-self.revisions_to_keep :]
        return replace(
            self, layers=layers, committed=now, revisions=revisions, number=self.number + 1
        )

    def reverted(self, number: int, now: float) -> "Volume":
        """This volume as it was at a revision. The state before becomes a revision in its turn.

        Raises:
            KeyError: there is no such revision.
        """
        for revision in self.revisions:
            if revision.number == number:
                made = self.advanced(revision.layers, now)
                return replace(made, size=revision.size or self.size)
        raise KeyError(number)

    def merged(self, run: tuple[str, ...], result: str) -> "Volume":
        """This volume with a run of its layers replaced by one of the same content."""
        return replace(
            self,
            layers=_replaced(self.layers, run, result),
            revisions=tuple(
                replace(revision, layers=_replaced(revision.layers, run, result))
                for revision in self.revisions
            ),
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "owner": str(self.owner)}

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Volume":
        """What to_json wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        revisions = tuple(
            Revision(each["number"], each["created"], tuple(each["layers"]), each.get("size"))
            for each in loaded["revisions"]
        )
        fields = {
            "owner": UUID(loaded["owner"]),
            "layers": tuple(loaded["layers"]),
            "revisions": revisions,
        }
        return cls(**{**loaded, **fields})


def _replaced(layers: tuple[str, ...], run: tuple[str, ...], result: str) -> tuple[str, ...]:
    for start in range(len(layers) - len(run) + 1):
        if layers[start : start + len(run)] == run:
            return (*layers[:start], result, *layers[start + len(run) :])
    return layers
