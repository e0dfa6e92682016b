"""Launching QEMUs in their jails and finding them again."""

import asyncio
import functools
import hashlib
import logging
import os
import socket
from collections.abc import Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

from insula.daemon.engine.interface import Capabilities, EngineError, MachineSpec
from insula.daemon.engine.qemu import images
from insula.daemon.engine.qemu.arguments import (
    BINARY,
    Accelerator,
    Descriptors,
    OpenLayer,
    Sources,
    arguments,
)
from insula.daemon.engine.qemu.blocks import top_node
from insula.daemon.engine.qemu.machine import QemuMachine
from insula.daemon.engine.qemu.qmp import Monitor
from insula.daemon.model.machine import Layer
from insula.keeper.client import KeeperClient, KeeperError, Requirements, assert_jailed, described
from insula.protocol.keeper import JailKind, JailSpec

START_TIMEOUT = 30.0
END_TIMEOUT = 10.0
_END_POLL = 0.005  # what waits for a machine ends a moment after it, with no event of its own
MACHINES = ("qube-", "golden-")  # what processes of the keeper's that are machines are called
SOCKETS = ("qmp", "control", "gui")
# An arena for each thread, and slices never given back, cost an idle machine 3 MB.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "G_SLICE": "always-malloc"}

log = logging.getLogger(__name__)


class QemuEngine:
    """QEMU with KVM, or with software emulation where KVM cannot be used."""

    name: ClassVar[str] = "qemu"

    def __init__(self, keeper: KeeperClient, accelerator: Accelerator, *, root: bool) -> None:
        self._keeper = keeper
        self._accelerator = accelerator
        self._root = root
        self._image_lock = asyncio.Lock()
        emulated = accelerator.name != "kvm"
        self.capabilities = Capabilities(
            clone=True,
            boundary=not emulated,
            warning="software emulation: no security boundary, only the jail of each process"
            if emulated
            else None,
        )

    @property
    def title(self) -> str:
        how = "KVM" if self._accelerator.name == "kvm" else "software emulation"
        return f"QEMU with {how}"

    def snapshot_key(self) -> str:
        found = Path(BINARY).stat()
        digest = _digest(BINARY, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        parts = [digest, self._accelerator.name, self._accelerator.machine_type]
        parts.append(self._accelerator.cpu)
        if self._accelerator.name == "kvm":
            parts.append(_host_processor())
        return "|".join(parts)

    async def launch(self, spec: MachineSpec) -> QemuMachine:
        async with AsyncExitStack() as undo:
            with ExitStack() as opened:
                sources = await self._sources(spec, opened)
                disks = tuple(
                    (disk, tuple(_open_layer(layer, opened) for layer in disk.layers))
                    for disk in spec.disks
                )
                descriptors = Descriptors()
                argv = arguments(spec, self._accelerator, sources, disks, descriptors)
                jail = JailSpec(
                    kind=JailKind.MACHINE,
                    program=tuple(argv),
                    descriptors=descriptors.numbers,
                    environment=_ENVIRONMENT,
                    uid=spec.uid if self._root else None,
                    kvm=self._accelerator.name == "kvm",
                )
                spawned = await self._keeper.spawn(spec.name, jail, descriptors.given)
                undo.push_async_callback(self.release, spec.name)
                monitor = Monitor(spec.name, spec.run / "qmp.sock")
                machine = QemuMachine(
                    spec.name, spawned.pid, spawned.pidfd, monitor, own_user=self._root
                )
                undo.push_async_callback(machine.kill)
                await self._connect(spec.name, machine, monitor)
                if spec.for_snapshot and sources.memory is not None:
                    machine.hold_memory(sources.memory)
                if spec.golden is None:
                    await self._verify(spec, descriptors.given)
                    await machine.resume()
                else:
                    # No instruction of the guest runs before both are through.
                    state = _open_file(spec.golden / "state", opened)
                    verifying = self._verify(spec, (*descriptors.given, state))
                    await _both(verifying, self._restore(spec, machine, state))
            undo.pop_all()
            return machine

    async def _connect(self, name: str, machine: QemuMachine, monitor: Monitor) -> None:
        connecting = asyncio.create_task(monitor.connect(START_TIMEOUT))
        ending = asyncio.create_task(machine.wait_gone())
        try:
            await asyncio.wait((connecting, ending), return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                said = await self._keeper.log(name)
                raise EngineError(f"{name} did not start: {said.strip()[-800:]}")
            await connecting
        finally:
            connecting.cancel()
            ending.cancel()

    async def _verify(self, spec: MachineSpec, given: Sequence[int]) -> None:
        """Refuse a machine whose jail is not wholly in force."""
        allowed = described(given)
        facts = await self._keeper.verify(spec.name)
        assert_jailed(
            facts,
            Requirements(
                uid=spec.uid if self._root else None,
                seccomp=True,
                given=allowed,
                kvm=self._accelerator.name == "kvm",
            ),
        )

    async def _restore(self, spec: MachineSpec, machine: QemuMachine, state: int) -> None:
        await machine.restore(state)
        await machine.announce_sizes(
            {
                top_node(disk.serial): disk.size
                for disk in spec.disks
                if not disk.read_only and disk.size != spec.golden_sizes.get(disk.serial)
            }
        )

    async def _sources(self, spec: MachineSpec, opened: ExitStack) -> Sources:
        spec.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        qmp, control, gui = (_listen(spec.run, name, opened) for name in SOCKETS)
        pixels = _closing(
            images.blank("insula-pixels", spec.shape.pixels, images.SIZE_SEALS), opened
        )
        await self._keeper.hold(f"pixels/{spec.name}", pixels)
        kernel = initrd = None
        if spec.golden is not None:
            memory: int | None = await self._image(spec.golden, spec.group, opened)
        else:
            kernel = _open_file(spec.kernel.image, opened)
            initrd = _open_file(spec.kernel.initrd, opened)
            memory = None
            if spec.for_snapshot:
                memory = _closing(images.blank("insula-golden", spec.shape.memory), opened)
        return Sources(
            qmp=qmp,
            control=control,
            gui=gui,
            pixels=pixels,
            memory=memory,
            kernel=kernel,
            initrd=initrd,
        )

    async def _image(self, golden: Path, group: str | None, opened: ExitStack) -> int:
        """The sealed memory of a snapshot, one copy for each group that shares pages."""
        if group is None:
            return _closing(await asyncio.to_thread(images.load_sealed, golden / "ram"), opened)
        name = image_name(golden, group)
        async with self._image_lock:
            with suppress(KeyError):
                return _closing(await self._keeper.take(name), opened)
            image = await asyncio.to_thread(images.load_sealed, golden / "ram")
            _closing(image, opened)
            await self._keeper.hold(name, image)
            return image

    async def drop_images(self, golden: Path, *, kept: Collection[str] = ()) -> int:
        """Let the keeper forget the memory images of a snapshot."""
        staying, dropped = {image_name(golden, group) for group in kept}, 0
        for name in await self._keeper.names(f"ram/{golden.name}/"):
            if name not in staying:
                with suppress(KeyError):
                    await self._keeper.drop(name)
                    dropped += 1
        return dropped

    async def adopt(self, name: str, run: Path) -> QemuMachine | None:
        processes = await self._keeper.list()
        found = processes.get(name)
        if found is None or found.exit is not None:
            return None
        try:
            pidfd = os.pidfd_open(found.pid)
        except ProcessLookupError:
            return None
        monitor = Monitor(name, run / "qmp.sock")
        machine = QemuMachine(name, found.pid, pidfd, monitor, own_user=self._root)
        try:
            await monitor.connect(START_TIMEOUT)
        except EngineError:
            await machine.close()
            raise
        return machine

    async def machines(self) -> tuple[str, ...]:
        processes = await self._keeper.list()
        return tuple(name for name in processes if name.startswith(MACHINES))

    async def release(self, name: str) -> None:
        with suppress(KeyError):
            await self._keeper.drop(f"pixels/{name}")
        with suppress(KeyError):
            await self._keeper.kill(name)
            try:
                async with asyncio.timeout(END_TIMEOUT):
                    while not await self._forget(name):
                        await asyncio.sleep(_END_POLL)
            except TimeoutError:
                raise EngineError(f"{name} does not end") from None

    async def _forget(self, name: str) -> bool:
        """Whether both layers of a machine have ended and the keeper remembers them no more."""
        try:
            await self._keeper.forget(name)
        except KeeperError:
            return False
        return True


async def _both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Run both to their ends, or neither beyond the first failure."""
    tasks = [asyncio.create_task(one), asyncio.create_task(other)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@functools.lru_cache(maxsize=1)
def _digest(path: str, *_identity: int) -> str:
    """The digest of a file, read again when it is another."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def image_name(golden: Path, group: str) -> str:
    """The keeper's name of a snapshot's sealed memory."""
    return f"ram/{golden.name}/{group}"


def _closing(descriptor: int, opened: ExitStack) -> int:
    opened.callback(os.close, descriptor)
    return descriptor


def _open_file(path: Path, opened: ExitStack) -> int:
    return _closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), opened)


def _listen(directory: Path, name: str, opened: ExitStack) -> int:
    """A listening socket for the QEMU to hold. Bound through a descriptor: paths end at 107."""
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.unlink(f"{name}.sock", dir_fd=folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        opened.callback(listener.close)
        listener.bind(f"/proc/self/fd/{folder}/{name}.sock")
        listener.listen(2)
    finally:
        os.close(folder)
    return listener.fileno()


def _open_layer(layer: Layer, opened: ExitStack) -> OpenLayer:
    if layer.fd is not None:
        descriptor = layer.fd
    else:
        flags = os.O_RDWR if layer.writable else os.O_RDONLY
        descriptor = _closing(os.open(layer.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW), opened)
    key = None
    if layer.key is not None:
        key = _closing(os.memfd_create("insula-key", os.MFD_CLOEXEC), opened)
        os.write(key, layer.key)
        os.lseek(key, 0, os.SEEK_SET)
    return OpenLayer(descriptor=descriptor, key=key)


def _host_processor() -> str:
    """What of the host's processor a snapshot under KVM depends on."""
    wanted = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")
    lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    picked = [line for line in lines if line.split("\t")[0].strip() in wanted]
    return hashlib.sha256("\n".join(picked).encode()).hexdigest()
