"""Where volumes lie: below an instance's home, or in the directory of another pool."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from insula.daemon.model.pools import POOL, Pool
from insula.daemon.model.volume import Volume
from insula.daemon.storage import files
from insula.daemon.storage.errors import PoolAwayError

VOLUMES, VOLATILE, KERNELS = "volumes", "volatile", "kernels"
MARK = "insula-pool"  # file of a pool's directory with its mark
_LONGEST_MARK = 256  # bytes


@dataclass(frozen=True, slots=True)
class Places:
    """home: persistent state of one instance. pools: those elsewhere, by name."""

    home: Path
    pools: dict[str, Pool] = field(default_factory=dict)

    @property
    def volatile(self) -> Path:
        """The directory whose file system holds what is thrown away; it looks empty."""
        return self.home / VOLATILE

    @property
    def kernels(self) -> Path:
        return self.home / KERNELS

    @property
    def names(self) -> tuple[str, ...]:
        """Pools that hold volumes."""
        return (POOL, *self.pools)

    def root(self, pool: str) -> Path:
        """A pool's directory.

        Raises:
            PoolAwayError: there is no such pool, or what lies there is not it.
        """
        if pool == POOL:
            return self.home
        known = self.pools.get(pool)
        if known is None or known.directory is None:
            raise PoolAwayError(pool, None)
        directory = Path(known.directory)
        if read_mark(directory) != known.mark:
            raise PoolAwayError(pool, directory)
        return directory

    def of(self, volume: Volume) -> Path:
        return self.root(volume.pool) / VOLUMES / str(volume.owner) / volume.name

    @contextmanager
    def directory(self, volume: Volume, *, create: bool = False) -> Iterator[int]:
        """A descriptor of a volume's directory."""
        steps = (VOLUMES, str(volume.owner), volume.name)
        with files.directory(self.root(volume.pool), *steps, create=create) as opened:
            yield opened


def read_mark(directory: Path) -> str | None:
    """What a directory says which pool it is; None where it says nothing."""
    try:
        with (directory / MARK).open("rb") as file:
            return file.read(_LONGEST_MARK).decode("ascii", "replace").strip()
    except OSError:
        return None
