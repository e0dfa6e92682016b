"""What the lifecycle asks of a virtual machine engine. QEMU, Xen and the in-memory one fit it.

It speaks of machines, ports and ends, never of virtio or of vchan. A port is numbered; to give a
port an end is to join it to one end of a socket pair, whose other end may lie in another machine
or in a local command.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar, Protocol

from insula.daemon.model.machine import Disk
from insula.protocol.errors import ReportableError

FIRST_DATA_PORT = 3
LAST_DATA_PORT = 30
FIRST_CARD = 0
FIRST_MAC = "00:16:3e:5e:6c:00"


class EngineError(ReportableError):
    """A virtual machine could not be made to do what was asked."""


class MachineGoneError(EngineError):
    """The virtual machine's process ended."""


class RunState(Enum):
    """What a machine is doing, as its engine sees it."""

    RUNNING = "running"
    PAUSED = "paused"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    clone: machines can start from a golden snapshot.
    boundary: the engine isolates by hardware; without it the process's jail is the only wall.
    """

    clone: bool
    boundary: bool
    warning: str | None = None

    @property
    def usual_processors(self) -> int | None:
        """How many a qube gets that was not told how many; None: as many as it is said to have.

        Where they are emulated each costs memory and starts, and the first serves.
        """
        return None if self.boundary else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a machine boots."""

    image: Path
    initrd: Path
    options: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a machine is made with; a clone has its snapshot's. memory and pixels are bytes."""

    memory: int = 512 * 1024 * 1024
    maximum_memory: int = 16 * 1024 * 1024 * 1024
    cpus: int = 1
    maximum_cpus: int = 4
    pixels: int = 256 * 1024 * 1024
    root_ports: int = 16

    def key(self) -> str:
        """Text that differs when a snapshot of one shape does not fit the other."""
        return (
            f"{self.memory}:{self.maximum_memory}:{self.cpus}:{self.maximum_cpus}"
            f":{self.pixels}:{self.root_ports}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A machine to launch.

    name: of the process, unique in the instance. uid: its unprivileged user, where it can be set.
    run: directory of its sockets. group: who may share pages of a snapshot's memory; None means
    nobody. golden: the snapshot to start from; None boots the kernel. golden_sizes: bytes of the
    snapshot's disks by serial; a guest is told of those that differ.
    """

    name: str
    uid: int
    run: Path
    disks: tuple[Disk, ...]
    kernel: Kernel
    shape: Shape
    golden: Path | None = None
    golden_sizes: Mapping[str, int] = field(default_factory=dict)
    group: str | None = None
    for_snapshot: bool = False
    code_cache: int = 128 * 1024 * 1024


class CableKind(Enum):
    """What comes out of a cable's end."""

    FRAMES = "a datagram for each Ethernet frame"
    STREAM = "Ethernet frames, each behind its length in 4 bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A network card. number: names it among those of its machine. end: of its cable, a socket.

    FIRST_CARD is there from the start, with FIRST_MAC, and only gets its cable.
    """

    number: int
    mac: str
    end: int
    kind: CableKind = CableKind.FRAMES


class Machine(Protocol):
    """A machine that was launched. It outlives the daemon; its process is found by its name."""

    name: str

    @property
    def pid(self) -> int: ...

    async def resume(self) -> None: ...

    async def pause(self) -> None: ...

    async def state(self) -> RunState: ...

    async def kill(self) -> None:
        """End it now; returns when the process is gone."""
        ...

    async def wait_gone(self) -> None: ...

    def on_gone(self, callback: Callable[[], None]) -> None: ...

    async def join(self, port: int, end: int) -> None:
        """Give a data port an end; the descriptor stays the caller's to close."""
        ...

    async def part(self, port: int) -> None:
        """Take a data port's end away; its guest side sees the other side closed."""
        ...

    async def joined(self, port: int) -> bool:
        """Whether a data port has an end whose other side is still open."""
        ...

    async def console(self, end: int) -> None:
        """Join its console to an end, from which an earlier one is taken away."""
        ...

    async def add_processors(self, count: int) -> None:
        """Give it count processors beyond those of its shape; the guest has to be told."""
        ...

    async def grow(self, memory: int) -> None:
        """Give it memory bytes in all, beyond those of its shape."""
        ...

    async def resize(self, serial: str, size: int) -> None:
        """Give a disk size bytes, and tell the guest of it."""
        ...

    async def plug(self, disk: Disk) -> None:
        """Give it a further disk; its layers are open, and stay the caller's to close.

        Raises:
            EngineError: there is no room for it, or a disk of that serial; nothing of it is left.
        """
        ...

    async def unplug(self, serial: str) -> None:
        """Take a further disk away; returns when the guest has let go of it.

        Raises:
            EngineError: there is none of that serial, or the guest keeps it.
        """
        ...

    async def plug_card(self, card: Card) -> None:
        """Give it a network card; the end stays the caller's to close. The guest has to be told.

        Raises:
            EngineError: there is no room for it, or a card of that number; nothing of it is left.
        """
        ...

    async def unplug_card(self, number: int) -> None:
        """Take a network card away, or a first card's cable; returns when the guest has let go.

        Raises:
            EngineError: there is none of that number, or the guest keeps it.
        """
        ...

    async def cards(self) -> frozenset[int]:
        """Numbers of its network cards that have a cable."""
        ...

    async def save(self, directory: Path) -> None:
        """Stop it and write its memory and state into directory; it is gone afterwards."""
        ...

    async def close(self) -> None:
        """Let go of it without ending it."""
        ...


class Engine(Protocol):
    """A way to run machines."""

    name: ClassVar[str]
    capabilities: Capabilities

    @property
    def title(self) -> str:
        """The engine and what it runs on, for a person."""
        ...

    async def launch(self, spec: MachineSpec) -> Machine:
        """Start a machine. A clone comes back paused, fully wired; a booting one runs.

        Raises:
            EngineError: it did not start, or its jail is not wholly in force; nothing is left.
        """
        ...

    async def adopt(self, name: str, run: Path) -> Machine | None:
        """Take a running machine over from an earlier daemon; None when it is gone."""
        ...

    async def machines(self) -> tuple[str, ...]:
        """Names of all machines that run, be it since an earlier daemon."""
        ...

    async def release(self, name: str) -> None:
        """Let go of what is kept of a machine that has ended; ends it if it has not."""
        ...

    async def drop_images(self, golden: Path, *, kept: Collection[str] = ()) -> int:
        """Let go of a snapshot's memory, save for groups that are kept; how many copies it was."""
        ...

    def snapshot_key(self) -> str:
        """Text that differs when a snapshot made by one engine cannot be used by the other."""
        ...
