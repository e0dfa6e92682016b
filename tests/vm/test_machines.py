"""QEMU's machines do what every engine's do, and what only theirs can.

They are clones of the instance's snapshot, without its daemon: engine and keeper are the test's.
"""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from insula.daemon.engine.interface import EngineError, Kernel, Shape
from insula.daemon.engine.qemu.arguments import Accelerator
from insula.daemon.engine.qemu.engine import QemuEngine
from insula.daemon.lifecycle.goldens import Golden
from insula.daemon.lifecycle.running import Order, RunningQube, machine_name
from insula.daemon.lifecycle.world import UID_BASE
from insula.daemon.model.layout import DISPOSABLE_VOLATILE_SIZE
from insula.daemon.model.machine import Disk, Layer
from insula.daemon.model.volume import PRIVATE_SIZE, Volume
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.volumes import Storage
from insula.keeper.client import KeeperClient
from tests.bench.floor import stored
from tests.keeping import keeping
from tests.machines import Ground, Machines, run, spare_disk
from tests.vm.instance import Instance

_UID = UID_BASE + 950_000
_MARKER = b"a marker that is looked for on the disk "
_CHUNK = 1 << 20


class QemuGround(Ground):
    """An instance's template and snapshot, run by an engine and a keeper of the test's own."""

    def __init__(self, instance: Instance, keeper: KeeperClient, run: Path) -> None:
        verdict = json.loads((instance.run / "accelerator.json").read_text())
        accelerator = Accelerator(**verdict["accelerator"])
        self.engine: QemuEngine = QemuEngine(keeper, accelerator, root=os.geteuid() == 0)
        self.keeper = keeper
        self.storage = Storage(instance.home)
        self.run = run
        self.user = "user"
        self.home = instance.home
        self._root = stored(instance.home / "insula.db", "debian-12").volumes["root"]
        self._uids = iter(range(_UID, _UID + 1000))

    @property
    def golden(self) -> Golden:
        """The newest snapshot."""
        made = (self.home / "golden").glob("[0-9a-f]*/meta.json")
        newest = max(made, key=lambda path: path.stat().st_mtime).parent
        sizes = {"private": PRIVATE_SIZE, "volatile": DISPOSABLE_VOLATILE_SIZE}
        return Golden("", newest, {"root": self._root.size, **sizes})

    def order(self, name: str) -> Order:
        owner, golden, nothing = uuid4(), self.golden, Path("/dev/null")
        root = Volume(owner=owner, name="root", size=self._root.size, snap_on_start=True)
        private = Volume(owner=owner, name="private", size=PRIVATE_SIZE)
        volatile = Volume(owner=owner, name="volatile", size=DISPOSABLE_VOLATILE_SIZE)
        image = self.home / "agent.img"
        return Order(
            uuid=owner,
            name=name,
            uid=next(self._uids),
            volumes=(
                Plan(volume=root, source=self._root, extra=(golden.layer,)),
                Plan(volume=private, extra=(golden.private,)),
                Plan(volume=volatile),
            ),
            agent=Disk("agent", (Layer(image, "raw"),), True, image.stat().st_size),
            kernel=Kernel(image=nothing, initrd=nothing, options=""),
            shape=Shape(),
            memory=Shape().memory,
            qubesdb={"/name": name, "/qubes-vm-persistence": "none", "/default-user": self.user},
            timeout=60.0,
            golden=golden,
            group="test",
        )


@pytest_asyncio.fixture
async def ground(instance: Instance) -> AsyncIterator[QemuGround]:
    with tempfile.TemporaryDirectory(prefix="insula-") as run:  # Sockets need a short path.
        async with keeping() as kept:
            yield QemuGround(instance, kept.client, Path(run))


class TestQemuMachines(Machines):
    """All that any engine's machines do."""


async def test_what_is_written_is_encrypted_and_has_no_name(ground: QemuGround) -> None:
    async with ground.qube() as qube:
        write = (
            f"for place in / /rw; do yes '{_MARKER.decode()}' | head -c 8M > $place/marked; done;"
            "sync"
        )
        assert (await run(qube, write, "root")).code == 0
        written = 0
        for image in _images(qube):
            assert os.fstat(image).st_nlink == 0
            written += os.fstat(image).st_blocks * 512
            assert not _holds(image, _MARKER)
        assert written > 16 << 20, "what was written has to be in what was looked at"


async def test_what_is_kept_is_not_encrypted(ground: QemuGround) -> None:
    """The control of the test above: a marker is found where there is one."""
    order = ground.order("qube")
    private = replace(order.volumes[1].volume, save_on_stop=True)
    await ground.storage.create(private)
    try:
        plans = (order.volumes[0], Plan(volume=private), order.volumes[2])
        async with ground.qube(replace(order, volumes=plans)) as qube:
            write = f"yes '{_MARKER.decode()}' | head -c 8M > /rw/marked; sync"
            assert (await run(qube, write, "root")).code == 0
            assert any(_holds(image, _MARKER) for image in _images(qube))
    finally:
        await ground.storage.remove(private.owner)


def _images(qube: RunningQube) -> Iterator[int]:
    """Files on disks that a machine can write, each open for the length of a step."""
    folder = Path("/proc", str(qube.machine.pid), "fd")
    seen: set[int] = set()
    for entry in tuple(folder.iterdir()):
        with suppress(FileNotFoundError):  # A machine opens and closes some as it goes.
            if not str(entry.readlink()).startswith("/") or not entry.is_file():
                continue
            information = (folder.parent / "fdinfo" / entry.name).read_text().splitlines()
            flags = next(int(line.split()[1], 8) for line in information if "flags" in line)
            if flags & os.O_ACCMODE != os.O_RDWR or entry.stat().st_ino in seen:
                continue
            seen.add(entry.stat().st_ino)
            image = os.open(entry, os.O_RDONLY)
            try:
                yield image
            finally:
                os.close(image)


def _holds(image: int, marker: bytes) -> bool:
    at, tail = 0, b""
    while data := os.pread(image, _CHUNK, at):
        if marker in tail + data:
            return True
        at, tail = at + len(data), data[-len(marker) :]
    return False


async def test_a_plugged_disk_is_the_guests_until_it_is_taken_away(
    ground: QemuGround, tmp_path: Path
) -> None:
    async with ground.qube() as qube, spare_disk(tmp_path, "extra") as disk:
        before = _descriptors(qube)
        for content in (b"first", b"then"):
            await qube.machine.plug(disk)
            device = (await _device(qube, "extra")).decode()
            write = f"cat > {device}; sync"
            assert (await run(qube, write, "root", content.ljust(4096))).code == 0
            await qube.machine.unplug("extra")
            assert _descriptors(qube) == before, "nothing of it is left in the machine"
            assert await _device(qube, "extra", there=False) == b""
        raw = tmp_path / "raw"
        process = await asyncio.create_subprocess_exec(
            *("qemu-img", "convert", "-O", "raw", str(tmp_path / "extra.qcow2"), str(raw))
        )
        assert await process.wait() == 0
        assert raw.read_bytes()[:4096] == b"then".ljust(4096)


async def test_a_disk_to_be_read_alone_cannot_be_written(
    ground: QemuGround, tmp_path: Path
) -> None:
    path = tmp_path / "given.raw"
    path.write_bytes(b"given".ljust(1 << 20, b"\0"))
    path.chmod(0o400)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        disk = Disk("given", (Layer(path, "raw", fd=descriptor),), True, 1 << 20)
        async with ground.qube() as qube:
            await qube.machine.plug(disk)
            device = (await _device(qube, "given")).decode()
            assert (await run(qube, f"head -c 5 {device}", "root")).out == b"given"
            assert (await run(qube, f"echo no > {device} && sync", "root")).code != 0
    finally:
        os.close(descriptor)
    assert path.read_bytes()[:5] == b"given"


async def test_disks_find_their_places_until_there_is_none(
    ground: QemuGround, tmp_path: Path
) -> None:
    room = Shape().root_ports - 1  # One is kept for memory.
    async with ground.qube() as qube:
        with ExitStack() as opened:
            for number in range(room):
                await qube.machine.plug(_given(tmp_path, f"disk{number}", opened))
            more = _given(tmp_path, "more", opened)
            with pytest.raises(EngineError, match="no free slot"):
                await qube.machine.plug(more)
            await qube.machine.grow(64 << 20)
            await qube.machine.unplug("disk3")
            await qube.machine.plug(more)
            assert await _device(qube, "more")


def _given(folder: Path, serial: str, opened: ExitStack) -> Disk:
    path = folder / serial
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o400)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return Disk(serial, (Layer(path, "raw", fd=descriptor),), True, 1 << 20)


async def _device(qube: RunningQube, serial: str, *, there: bool = True) -> bytes:
    """The path of a plugged disk, once udev has made it; empty once it has removed it."""
    path = f"/dev/disk/by-id/virtio-{serial}"
    test = "-e" if there else "! -e"
    command = (
        f"for n in $(seq 200); do [ {test} {path} ] && exec readlink -f {path}; sleep 0.1; done"
        if there
        else f"for n in $(seq 200); do [ {test} {path} ] && exit; sleep 0.1; done; echo {path}"
    )
    return (await run(qube, command, "root")).out.strip()


def _descriptors(qube: RunningQube) -> int:
    return len(list(Path("/proc", str(qube.machine.pid), "fd").iterdir()))


async def test_nothing_is_left_of_a_machine_that_was_killed(ground: QemuGround) -> None:
    async with ground.qube() as qube:
        held = set(await ground.keeper.names(""))
        assert f"pixels/{machine_name(qube.uuid)}" in held
        os.kill(qube.machine.pid, signal.SIGKILL)
        await asyncio.wait_for(qube.machine.wait_gone(), 30)
    assert await ground.keeper.list() == {}
    assert {name.partition("/")[0] for name in await ground.keeper.names("")} <= {"ram"}
    assert not list((ground.home / "volatile").iterdir())
