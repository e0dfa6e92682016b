"""What a running QEMU is given later: disks, which can be taken away again, and memory.

What belongs to a device is asked of the QEMU each time, so that a daemon may take away what an
earlier one plugged in.
"""

import os
import re
import stat
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from insula.daemon.engine.interface import EngineError, MachineGoneError
from insula.daemon.engine.qemu import blocks, images
from insula.daemon.engine.qemu.qmp import Monitor
from insula.daemon.model.machine import Disk, Layer

UNPLUG_TIMEOUT = 15.0  # seconds a guest has to let go of a disk
_PERIPHERALS = "/machine/peripheral"
_GROWTH, _GROWTH_BUS = "growth", "rp0"
_GROWTH_STEP = 2 * 1024 * 1024  # bytes; virtio-mem's block size on x86
_ROOT_PORT = re.compile(r"rp[0-9]+", re.ASCII)
_SET = re.compile(r"/dev/fdset/([0-9]+)", re.ASCII)


class NoFreeSlotError(EngineError):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has no free slot for another device")
        self.hint = "Detach a device first."


async def plug(monitor: Monitor, name: str, disk: Disk, *, own_user: bool) -> None:
    """Give a machine one more disk. own_user: its process has a user that owns no file.

    Raises:
        EngineError: it was refused; nothing of it is left.
    """
    if not 0 < len(disk.serial) <= blocks.LONGEST_SERIAL or not disk.layers:
        raise EngineError(f"{name}: {disk.serial!r} is no disk that could be plugged in")
    async with AsyncExitStack() as undo:
        below: str | None = None
        for node, layer in zip(blocks.node_names(disk), disk.layers, strict=True):
            await _add_layer(monitor, node, layer, below, undo, own_user=own_user)
            below = node
        bus = await free_bus(monitor, name)
        await monitor.execute("device_add", {**blocks.device(disk), "bus": bus})
        undo.pop_all()


async def _add_layer(
    monitor: Monitor,
    node: str,
    layer: Layer,
    below: str | None,
    undo: AsyncExitStack,
    *,
    own_user: bool,
) -> None:
    descriptor = _checked(layer, own_user=own_user)
    number, _ = await monitor.add_descriptor(descriptor)
    undo.push_async_callback(partial(attempt, monitor, "remove-fd", {"fdset-id": number}))
    if layer.key is not None:
        secret = {
            "qom-type": "secret",
            "id": blocks.key_id(node),
            "format": "raw",
            "data": layer.key.decode("ascii"),
        }
        await monitor.execute("object-add", secret)
        undo.push_async_callback(partial(attempt, monitor, "object-del", {"id": secret["id"]}))
    for added in (blocks.file_node(node, layer, number), blocks.layer_node(node, layer, below)):
        await monitor.execute("blockdev-add", added)
        gone = {"node-name": added["node-name"]}
        undo.push_async_callback(partial(attempt, monitor, "blockdev-del", gone))


def _checked(layer: Layer, *, own_user: bool) -> int:
    """A layer's descriptor, if a QEMU may have it that was taken over."""
    if layer.fd is None:
        raise ValueError(f"layer {layer.path} is not open")
    mode = os.fstat(layer.fd).st_mode
    if not layer.writable and not own_user and stat.S_ISREG(mode) and mode & stat.S_IWUSR:
        # Its process would be the file's owner, and could open it anew to write.
        error = EngineError(f"{layer.path} could be written by a machine that is to read it alone")
        error.hint = f"Take its write permission away: chmod a-w {layer.path}"
        raise error
    return layer.fd


async def unplug(monitor: Monitor, name: str, serial: str) -> None:
    """Take a disk away, once the guest has let go of it.

    Raises:
        EngineError: there is no such disk, or the guest does not let go of it.
    """
    device = blocks.device_id(serial)
    if device not in await peripherals(monitor):
        raise EngineError(f"{name} has no disk {serial!r}")
    await monitor.until(
        "DEVICE_DELETED",
        lambda data: data.get("device") == device,
        UNPLUG_TIMEOUT,
        "device_del",
        {"id": device},
    )
    await _remove_nodes(monitor, serial)


async def _remove_nodes(monitor: Monitor, serial: str) -> None:
    nodes: dict[str, str] = {
        node["node-name"]: str(node.get("file", ""))
        for node in await monitor.execute("query-named-block-nodes", {"flat": True})
        if blocks.belongs(node["node-name"], serial)
    }
    # From the top down, each over its file: a node can go once nothing uses it.
    tops = sorted((one for one in nodes if not one.endswith("-file")), key=_height, reverse=True)
    for node in tops:
        for gone in (node, f"{node}-file"):
            await monitor.execute("blockdev-del", {"node-name": gone})
        await attempt(monitor, "object-del", {"id": blocks.key_id(node)})
        found = _SET.fullmatch(nodes.get(f"{node}-file", ""))
        if found is not None:
            await attempt(monitor, "remove-fd", {"fdset-id": int(found[1])})


def _height(node: str) -> float:
    place = node.rpartition("-")[2]
    return float("inf") if place == "top" else int(place)


async def free_bus(monitor: Monitor, name: str) -> str:
    """The first slot that has nothing in it.

    Raises:
        NoFreeSlotError: all have something.
    """
    ports, used = set(), {_GROWTH_BUS}
    for peripheral in await peripherals(monitor):
        if _ROOT_PORT.fullmatch(peripheral):
            ports.add(peripheral)
            continue
        where = {"path": f"{_PERIPHERALS}/{peripheral}", "property": "parent_bus"}
        with suppress(EngineError):  # Not everything is on a bus.
            used.add(str(await monitor.execute("qom-get", where)).rpartition("/")[2])
    free = sorted(ports - used, key=lambda port: int(port[2:]))
    if not free:
        raise NoFreeSlotError(name)
    return free[0]


async def peripherals(monitor: Monitor) -> list[str]:
    """Names of all devices and objects that a machine was given by name."""
    entries: list[dict[str, Any]] = await monitor.execute("qom-list", {"path": _PERIPHERALS})
    return [entry["name"] for entry in entries if entry["type"].startswith("child<")]


async def attempt(monitor: Monitor, command: str, arguments: dict[str, Any]) -> None:
    """Undo a step as far as it can be undone."""
    try:
        await monitor.execute(command, arguments)
    except MachineGoneError:
        raise
    except EngineError:
        return


async def grow(monitor: Monitor, name: str, memory: int) -> None:
    """Give a machine memory bytes beyond those it was made with.

    Memory of its own: what a clone shares with others is left as it is.

    Raises:
        EngineError: that is more than it has room for, or was refused.
    """
    wanted = memory // _GROWTH_STEP * _GROWTH_STEP
    if _GROWTH not in await peripherals(monitor):
        await _plug_growth(monitor)
    where = f"{_PERIPHERALS}/{_GROWTH}"
    found = await monitor.execute("qom-get", {"path": where, "property": "memdev"})
    room = int(await monitor.execute("qom-get", {"path": found, "property": "size"}))
    if wanted > room:
        error = EngineError(f"{name} has room for {room >> 20} MiB of memory more")
        error.hint = "Give it less: qvm-prefs QUBE memory MIB"
        raise error
    await monitor.execute("qom-set", {"path": where, "property": "requested-size", "value": wanted})


async def add_processors(monitor: Monitor, name: str, count: int) -> None:
    """Give a machine more processors.

    Raises:
        EngineError: there is no room for as many, or one was refused; those before it stay.
    """
    places = await monitor.execute("query-hotpluggable-cpus")
    # As QEMU tells them the last comes first.
    free = [one for one in reversed(places) if "qom-path" not in one]
    if count > len(free):
        raise EngineError(f"{name} has room for {len(free)} more processors, not {count}")
    for place in free[:count]:
        core = place["props"].get("core-id", 0)
        device = {"driver": place["type"], "id": f"cpu{place['props']['socket-id']}-{core}"}
        await monitor.execute("device_add", {**device, **place["props"]})


async def _plug_growth(monitor: Monitor) -> None:
    size = await monitor.execute("qom-get", {"path": "/machine", "property": "memory"})
    taken = sum(one["data"]["size"] for one in await monitor.execute("query-memory-devices"))
    room = (int(size["max-size"]) - int(size["size"]) - taken) // _GROWTH_STEP * _GROWTH_STEP
    backend = await _unreserved_memory(monitor, room)
    device = {"driver": "virtio-mem-pci", "id": _GROWTH, "memdev": backend}
    try:
        await monitor.execute("device_add", {**device, "requested-size": 0, "bus": _GROWTH_BUS})
    except EngineError:
        await attempt(monitor, "object-del", {"id": backend})
        raise


async def _unreserved_memory(monitor: Monitor, size: int) -> str:
    """A backend of which the host has to have only what the guest is given and uses.

    A file of ours: to leave memory of its own unreserved, QEMU would ask a file of /proc that its
    jail does not show.
    """
    memory = images.blank("insula-growth", size, images.SIZE_SEALS)
    try:
        number, descriptor = await monitor.add_descriptor(memory)
    finally:
        os.close(memory)
    backend = f"{_GROWTH}-memory"
    try:
        await monitor.execute(
            "object-add",
            {
                "qom-type": "memory-backend-file",
                "id": backend,
                "size": size,
                "mem-path": f"/proc/self/fd/{descriptor}",
                "share": True,
            },
        )
    finally:
        await attempt(monitor, "remove-fd", {"fdset-id": number})
    return backend
