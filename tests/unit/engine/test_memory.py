"""The in-memory engine does what every engine does."""

import getpass
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest_asyncio

from insula.daemon.engine.interface import Kernel, Shape
from insula.daemon.engine.memory.engine import MemoryEngine
from insula.daemon.lifecycle.goldens import Golden
from insula.daemon.lifecycle.running import Order
from insula.daemon.model.machine import Disk
from insula.daemon.storage.volumes import Storage
from tests.machines import Ground, Machines


class MemoryGround(Ground):
    """Agents as processes; they have no disks of their own."""

    def __init__(self, home: Path, run: Path) -> None:
        self.engine = MemoryEngine()
        self.storage = Storage(home)
        self.run = run
        self.user = getpass.getuser()

    def order(self, name: str) -> Order:
        nothing = Path("/dev/null")
        return Order(
            uuid=uuid4(),
            name=name,
            uid=0,
            volumes=(),
            agent=Disk("agent", (), True, 512),
            kernel=Kernel(image=nothing, initrd=nothing, options=""),
            shape=Shape(),
            memory=Shape().memory,
            qubesdb={"/name": name, "/default-user": self.user},
            timeout=20.0,
            golden=Golden("key", nothing),
        )


class TestMemoryMachines(Machines):
    @pytest_asyncio.fixture
    async def ground(self, tmp_path: Path) -> AsyncIterator[Ground]:
        with tempfile.TemporaryDirectory(prefix="insula-") as run:  # Sockets need a short path.
            yield MemoryGround(tmp_path, Path(run))
