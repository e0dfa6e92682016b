"""What a machine is made of, as the rooms that make it and those that run it both know it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

LayerFormat = Literal["qcow2", "raw"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One image file of a disk.

    path: where it lies; for a file without a name, the directory whose file system holds it.
    key: passphrase of an encrypted layer, ASCII text; it exists in memory alone.
    fd: the file, opened for this launch alone, read-only unless writable. A machine gets it, never
    the path; None in a layer that nobody has opened yet. Whoever holds the layer closes it.
    """

    path: Path
    format: LayerFormat
    writable: bool = False
    key: bytes | None = field(default=None, repr=False)
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a machine: layers, base first; where the top has nothing, the one below shows.

    serial: what the guest knows it by, one of root, private, volatile, agent or a device's.
    size: bytes. A disk without layers is blank and forgets what is written.
    """

    serial: str
    layers: tuple[Layer, ...]
    read_only: bool
    size: int
