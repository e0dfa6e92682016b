"""Volumes of qubes, as far as listings show them (admin-api.md sections 3.6 and 4.7)."""

import asyncio
from pathlib import Path

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import RefusedSilentlyError
from insula.daemon.model.layout import source_of
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.properties.system_wide import KERNEL_POOL, POOL
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.volume import Volume
from insula.daemon.storage.errors import StorageError

_KERNEL = "kernel"  # shown as a volume, as clients expect; qubes get theirs without a disk


def _volume(call: Call) -> Volume:
    found = call.destination.volumes.get(call.argument)
    if found is None:
        raise RefusedSilentlyError(f"no volume {call.argument!r}")
    return found


def _vid(call: Call, volume: Volume) -> str:
    owner = call.api.world.system.qubes[volume.owner]
    folder = "vm-templates" if owner.klass is QubeClass.TEMPLATE else "appvms"
    return f"{folder}/{owner.name}/{volume.name}"


def _source(call: Call, qube: Qube, volume: Volume) -> Volume | None:
    if not volume.snap_on_start:
        return None
    system = call.api.world.system
    return source_of(volume, system.find(qube.template), system.root_template(qube))


async def list_volumes(call: Call) -> str:
    names = (*call.destination.volumes, _KERNEL) if call.destination.volumes else ()
    return "".join(f"{name}\n" for name in names)


async def info(call: Call) -> str:
    if call.argument == _KERNEL and call.destination.volumes:
        return await _kernel_info(call)
    volume = _volume(call)
    source = _source(call, call.destination, volume)
    usage = await call.api.world.storage.usage(volume)
    return _lines(
        {
            "pool": POOL,
            "vid": _vid(call, volume),
            "size": volume.size if source is None else source.size,
            "usage": usage,
            "rw": volume.rw,
            "source": "" if source is None else _vid(call, source),
            "path": "",  # layers reach the virtual machine as descriptors, never by a path
            "save_on_stop": volume.save_on_stop,
            "snap_on_start": volume.snap_on_start,
            "revisions_to_keep": volume.revisions_to_keep,
            # What snapshots throw away is encrypted as well, but has no such setting.
            "ephemeral": volume.rw and not volume.save_on_stop and not volume.snap_on_start,
        }
    )


async def list_snapshots(call: Call) -> str:
    if call.argument == _KERNEL and call.destination.volumes:
        return ""
    return "".join(f"{revision.number}\n" for revision in _volume(call).revisions)


async def _kernel_info(call: Call) -> str:
    name = str(value_of(call.api.world.system, call.destination, "kernel") or "")
    size = 0
    if name:
        try:
            files = call.api.world.kernels.find(name)
            size = await asyncio.to_thread(_size, files)
        except StorageError:
            size = 0  # It was removed from the pool; a start says so.
    return _lines(
        {
            "pool": KERNEL_POOL,
            "vid": name,
            "size": size,
            "usage": size,
            "rw": False,
            "source": "",
            "path": "",
            "save_on_stop": False,
            "snap_on_start": False,
            "revisions_to_keep": 0,
            "ephemeral": False,
        }
    )


def _size(files: tuple[Path, ...]) -> int:
    return sum(file.stat().st_size for file in files)


def _lines(fields: dict[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in fields.items())


METHODS = {
    "admin.vm.volume.List": Method(run=list_volumes),
    "admin.vm.volume.Info": Method(run=info, argument=True),
    "admin.vm.volume.ListSnapshots": Method(run=list_snapshots, argument=True),
}
