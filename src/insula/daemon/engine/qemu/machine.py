"""A running QEMU: its ports, its end, its memory."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from insula.daemon.engine.interface import Card, EngineError, MachineGoneError, RunState
from insula.daemon.engine.qemu import cards, images, plugging
from insula.daemon.engine.qemu.blocks import top_node
from insula.daemon.engine.qemu.qmp import Monitor
from insula.daemon.model.machine import Disk

KILL_TIMEOUT = 10.0
SAVE_TIMEOUT = 120.0


class QemuMachine:
    """One QEMU process in its jail, known by a pidfd and a monitor.

    own_user: its user is nobody else's, and owns no file.
    """

    def __init__(
        self, name: str, pid: int, pidfd: int, monitor: Monitor, *, own_user: bool
    ) -> None:
        self.name = name
        self._own_user = own_user
        self._pid = pid
        self._pidfd = pidfd
        self._monitor = monitor
        self._gone = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._memory: int | None = None
        asyncio.get_running_loop().add_reader(pidfd, self._went)

    @property
    def pid(self) -> int:
        return self._pid

    def hold_memory(self, descriptor: int) -> None:
        """Keep a duplicate of the memory file, for save()."""
        self._memory = os.dup(descriptor)

    def _went(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._gone.set()
        for callback in self._callbacks:
            callback()

    def on_gone(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if self._gone.is_set():
            callback()

    async def wait_gone(self) -> None:
        await self._gone.wait()

    async def resume(self) -> None:
        await self._monitor.execute("cont")

    async def pause(self) -> None:
        await self._monitor.execute("stop")

    async def state(self) -> RunState:
        if self._gone.is_set():
            return RunState.GONE
        try:
            answer = await self._monitor.execute("query-status")
        except MachineGoneError:
            return RunState.GONE
        return RunState.RUNNING if answer["running"] else RunState.PAUSED

    async def kill(self) -> None:
        if not self._gone.is_set():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            try:
                async with asyncio.timeout(KILL_TIMEOUT):
                    await self._gone.wait()
            except TimeoutError:
                raise EngineError(f"{self.name}: process {self._pid} does not end") from None
        await self.close()

    async def join(self, port: int, end: int) -> None:
        await self._join(f"c{port}", end)

    async def console(self, end: int) -> None:
        await self._join("console", end)

    async def _join(self, chardev: str, end: int) -> None:
        await self._monitor.with_descriptor(
            end,
            "chardev-change",
            lambda fdname: {
                "id": chardev,
                "backend": {
                    "type": "socket",
                    "data": {"addr": {"type": "fd", "data": {"str": fdname}}, "server": False},
                },
            },
        )

    async def part(self, port: int) -> None:
        await self._monitor.execute(
            "chardev-change", {"id": f"c{port}", "backend": {"type": "null", "data": {}}}
        )

    async def joined(self, port: int) -> bool:
        for chardev in await self._monitor.execute("query-chardev"):
            if chardev["label"] == f"c{port}":
                described = str(chardev["filename"])
                return described != "null" and not described.startswith("disconnected")
        return False

    async def add_processors(self, count: int) -> None:
        await plugging.add_processors(self._monitor, self.name, count)

    async def grow(self, memory: int) -> None:
        await plugging.grow(self._monitor, self.name, memory)

    async def resize(self, serial: str, size: int) -> None:
        await self.announce_sizes({top_node(serial): size})

    async def plug(self, disk: Disk) -> None:
        await plugging.plug(self._monitor, self.name, disk, own_user=self._own_user)

    async def unplug(self, serial: str) -> None:
        await plugging.unplug(self._monitor, self.name, serial)

    async def plug_card(self, card: Card) -> None:
        await cards.plug(self._monitor, self.name, card)

    async def unplug_card(self, number: int) -> None:
        await cards.unplug(self._monitor, self.name, number)

    async def cards(self) -> frozenset[int]:
        return await cards.numbers(self._monitor)

    async def announce_sizes(self, sizes: dict[str, int]) -> None:
        """Tell a clone's guest what size its disks really have, by block node."""
        for node, size in sizes.items():
            await self._monitor.execute("block_resize", {"node-name": node, "size": size})

    async def restore(self, state: int) -> None:
        """Load device state from a descriptor; the machine is paused afterwards."""
        await self._set_capabilities()
        await self._monitor.with_descriptor(
            state, "migrate-incoming", lambda fdname: {"uri": f"fd:{fdname}"}
        )
        async with asyncio.timeout(SAVE_TIMEOUT):
            while True:
                status = (await self._monitor.execute("query-status"))["status"]
                if status != "inmigrate":
                    break
                await asyncio.sleep(0.002)  # The state is loaded in QEMU's main loop, unannounced.
        if status != "paused":
            raise EngineError(f"{self.name}: the snapshot came back as {status}")

    async def save(self, directory: Path) -> None:
        if self._memory is None:
            raise EngineError(f"{self.name} was not launched for a snapshot")
        await self.pause()
        await self._set_capabilities()
        target = os.open(directory / "state", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            await self._monitor.with_descriptor(
                target, "migrate", lambda fdname: {"uri": f"fd:{fdname}"}
            )
            await self._finish_save()
            await asyncio.to_thread(os.fsync, target)
        finally:
            os.close(target)
        memory = self._memory
        with suppress(MachineGoneError):
            await self._monitor.execute("quit")
        async with asyncio.timeout(KILL_TIMEOUT):
            await self._gone.wait()
        await asyncio.to_thread(images.store, memory, directory / "ram")
        await self.close()

    async def _finish_save(self) -> None:
        async with asyncio.timeout(SAVE_TIMEOUT):
            while True:
                answer: dict[str, Any] = await self._monitor.execute("query-migrate")
                match answer.get("status"):
                    case "completed":
                        return
                    case "failed" | "cancelled":
                        reason = answer.get("error-desc", "no reason given")
                        raise EngineError(f"{self.name}: saving its state failed: {reason}")
                await asyncio.sleep(
                    0.02
                )  # QEMU has no event for it unless asked for by capability.

    async def _set_capabilities(self) -> None:
        await self._monitor.execute(
            "migrate-set-capabilities",
            {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
        )

    async def close(self) -> None:
        if self._pidfd >= 0:
            with suppress(ValueError, OSError):
                asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None
        await self._monitor.close()
