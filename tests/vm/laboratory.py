"""Snapshots made on purpose: with the real agent, or with one that lacks what keeps clones apart.

No daemon: keeper, engine and storage of the test's own, one boot for each snapshot.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import insula
from insula.client.instance import cache
from insula.daemon.engine.interface import Kernel, Shape
from insula.daemon.engine.qemu import images
from insula.daemon.engine.qemu.arguments import Accelerator, arguments
from insula.daemon.engine.qemu.detect import choose_accelerator
from insula.daemon.engine.qemu.engine import QemuEngine
from insula.daemon.lifecycle.boot import kernel_options
from insula.daemon.lifecycle.goldens import Basis, Golden, Goldens
from insula.daemon.model.machine import Disk, Layer
from insula.daemon.model.volume import PRIVATE_SIZE, ROOT_SIZE, VOLATILE_SIZE, Volume
from insula.daemon.storage.places import Places
from insula.daemon.storage.volumes import Storage
from insula.keeper.client import KeeperClient, start_keeper
from insula.template.agent_volume import make_agent_volume
from insula.template.build import build
from insula.template.recipes import find_recipe
from tests.bench.floor import UID, Floor

_ARGUMENTS = (
    "insula.daemon.engine.qemu.engine.arguments",
    "tests.bench.floor.qemu_arguments",
)
Change = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A place for experiments. home: volumes and snapshots. run: sockets."""

    home: Path
    run: Path

    def snapshot(self, name: str, change: Change = lambda _package: None) -> Floor:
        """Boot the template with an agent that change has been made to, and park it.

        change gets a copy of the package's folder. The machine has no VM generation ID: what keeps
        its clones apart is the agent alone.
        """
        package = self.home / f"package-{name}"
        shutil.copytree(Path(insula.__file__).parent, package)
        change(package)
        with without_generation_id():
            return asyncio.run(self._snapshot(name, package))

    async def _snapshot(self, name: str, package: Path) -> Floor:
        start_keeper(self.run / "keeper.sock", self.home / "keeper.log")
        keeper = await KeeperClient.connect(self.run / "keeper.sock")
        try:
            accelerator = await choose_accelerator(os.environ.get("INSULA_ENGINE"))
            engine = QemuEngine(keeper, accelerator, root=os.geteuid() == 0)
            storage = Storage(self.home)
            await storage.prepare()
            goldens = Goldens(self.home / "golden", self.run, engine, storage, UID)
            basis = await self._basis(name, package, storage)
            return self._floor(basis, await goldens.make(basis), accelerator)
        finally:
            await keeper.close()

    async def _basis(self, name: str, package: Path, storage: Storage) -> Basis:
        built = build(find_recipe("debian-12"), cache(), lambda _phase, _part: None)
        root = Volume(owner=uuid4(), name="root", size=ROOT_SIZE, save_on_stop=True)
        agent = self.home / f"agent-{name}.img"
        digest = make_agent_volume(agent, package)
        return Basis(
            root=await storage.import_image(root, built.root, "qcow2"),
            private_size=PRIVATE_SIZE,
            volatile_size=VOLATILE_SIZE,
            kernel=Kernel(
                image=built.kernel, initrd=built.initrd, options=kernel_options(gui=False)
            ),
            shape=Shape(),
            agent=Disk("agent", (Layer(agent, "raw"),), True, agent.stat().st_size),
            agent_digest=digest,
        )

    def _floor(self, basis: Basis, golden: Golden, accelerator: Accelerator) -> Floor:
        return Floor(
            places=Places(self.home),
            root=basis.root,
            golden=golden,
            memory=images.load_sealed(golden.directory / "ram"),
            accelerator=accelerator,
            agent=basis.agent.layers[0].path,
        )


@contextmanager
def without_generation_id() -> Iterator[None]:
    """Machines without the device that tells a guest's kernel that it was cloned."""

    def lacking(*given: Any) -> list[str]:
        words = arguments(*given)
        at = next(n for n, word in enumerate(words) if word.startswith("vmgenid"))
        return words[: at - 1] + words[at + 1 :]

    with patch(_ARGUMENTS[0], lacking), patch(_ARGUMENTS[1], lacking):
        yield
