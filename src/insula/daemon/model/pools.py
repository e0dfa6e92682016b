"""Pools: where volumes lie, and which drivers there are (admin-api.md section 9.4). No I/O."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

POOL = "varlibqubes"  # the pool below an instance's home, by the name it has in Qubes
KERNEL_POOL = "linux-kernel"
KERNEL_DRIVER = "linux-kernel"

_ONLY_REVISION = "old"
POOL_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Driver:
    """A kind of pool. options: what a pool of it may be given, in the order they are listed."""

    options: tuple[str, ...]
    mandatory: frozenset[str] = frozenset(("dir_path",))
    most_revisions: int | None = None


DRIVERS: dict[str, Driver] = {
    "file": Driver(("revisions_to_keep", "dir_path", "ephemeral_volatile"), most_revisions=1),
    "file-reflink": Driver(("revisions_to_keep", "dir_path", "setup_check", "ephemeral_volatile")),
    KERNEL_DRIVER: Driver(("dir_path",)),
}
ELSEWHERE = ("lvm_thin", "zfs", "callback")  # Qubes has them; they are not offered here


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A place for volumes.

    directory: an absolute path; None is the instance's own. revisions_to_keep, ephemeral_volatile:
    what new volumes begin with. mark: by which its directory is known to be this pool's, and not an
    empty place at which another file system is to be mounted.
    """

    name: str
    driver: str
    directory: str | None = None
    revisions_to_keep: int = 1
    ephemeral_volatile: bool = True
    setup_check: bool = True
    mark: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if POOL_NAME.fullmatch(self.name) is None:
            raise ValueError(f"a pool cannot be called {self.name!r}")
        if self.driver not in DRIVERS:
            raise ValueError(f"there is no driver {self.driver!r}")

    @property
    def holds_kernels(self) -> bool:
        """Whether it holds kernels, and no volumes that qubes write."""
        return self.driver == KERNEL_DRIVER

    @property
    def built_in(self) -> bool:
        """Whether every instance has it."""
        return self.directory is None

    def revision_name(self, number: int) -> str:
        """What a former state is called, the first 1 (admin-api.md section 9.3)."""
        return _ONLY_REVISION if DRIVERS[self.driver].most_revisions == 1 else str(number + 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, loaded: dict[str, Any]) -> "Pool":
        """What to_json wrote.

        Raises:
            TypeError, ValueError: it is something else.
        """
        return cls(**loaded)


def built_in_pools() -> dict[str, Pool]:
    """The pools that every instance has."""
    return {
        POOL: Pool(name=POOL, driver="file-reflink"),
        KERNEL_POOL: Pool(name=KERNEL_POOL, driver=KERNEL_DRIVER),
    }
