"""Where volumes lie below an instance's home."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from insula.daemon.model.volume import Volume
from insula.daemon.storage import files

VOLUMES, VOLATILE, KERNELS = "volumes", "volatile", "kernels"


@dataclass(frozen=True, slots=True)
class Places:
    """home: persistent state of one instance."""

    home: Path

    @property
    def volumes(self) -> Path:
        return self.home / VOLUMES

    @property
    def volatile(self) -> Path:
        """The directory whose file system holds what is thrown away; it looks empty."""
        return self.home / VOLATILE

    @property
    def kernels(self) -> Path:
        return self.home / KERNELS

    def of(self, volume: Volume) -> Path:
        return self.volumes / str(volume.owner) / volume.name

    def directory(self, volume: Volume, *, create: bool = False) -> AbstractContextManager[int]:
        """A descriptor of a volume's directory."""
        return files.directory(self.home, VOLUMES, str(volume.owner), volume.name, create=create)
