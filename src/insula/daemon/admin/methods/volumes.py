"""Volumes of qubes (admin-api.md sections 3.6, 4.7 and 4.13)."""

import asyncio
import re
from pathlib import Path

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import RefusedSilentlyError, ValueRefusedError
from insula.daemon.model.placing import KERNEL_DEFAULT, default_pool, pool_of
from insula.daemon.model.properties.parsing import truth
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.volume import Volume
from insula.daemon.storage.errors import DriverRefusedError, StorageError

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_KERNEL = "kernel"  # shown as a volume, as clients expect; qubes get theirs without a disk


def _volume(call: Call) -> Volume:
    if call.argument == _KERNEL and call.destination.volumes:
        error = DriverRefusedError(f"The kernel of {call.destination.name} is no volume to change")
        error.hint = f"Choose another: qvm-prefs {call.destination.name} kernel NAME"
        raise error
    found = call.destination.volumes.get(call.argument)
    if found is None:
        raise RefusedSilentlyError(f"no volume {call.argument!r}")
    return found


async def list_volumes(call: Call) -> str:
    names = (*call.destination.volumes, _KERNEL) if call.destination.volumes else ()
    return "".join(f"{name}\n" for name in names)


async def info(call: Call) -> str:
    if call.argument == _KERNEL and call.destination.volumes:
        return await _kernel_info(call)
    qube, volume, volumes = call.destination, _volume(call), call.api.volumes
    source = volumes.source(qube, volume)
    return lines(
        {
            "pool": pool_of(call.api.world.system, qube, volume),
            "vid": volumes.vid(qube, volume.name),
            "size": volume.size if source is None else source.size,
            "usage": await _usage(call, volume),
            "rw": volume.rw,
            "source": "" if source is None else _vid_of(call, source),
            "path": "",  # layers reach the virtual machine as descriptors, never by a path
            "save_on_stop": volume.save_on_stop,
            "snap_on_start": volume.snap_on_start,
            "revisions_to_keep": volume.revisions_to_keep,
            "ephemeral": volume.is_ephemeral,
            "is_outdated": volumes.is_outdated(qube, volume),
        }
    )


async def _usage(call: Call, volume: Volume) -> int:
    try:
        return await call.api.world.storage.usage(volume)
    except StorageError:
        return 0  # Its pool is away; a start says so.


async def list_snapshots(call: Call) -> str:
    if call.argument == _KERNEL and call.destination.volumes:
        return ""
    return "".join(f"{name}\n" for name in _revisions(call, _volume(call)))


def _revisions(call: Call, volume: Volume) -> dict[str, int]:
    """Numbers of the revisions that are kept, oldest first, by what they are called."""
    pool = call.api.world.system.pools[volume.pool]
    return {pool.revision_name(one.number): one.number for one in volume.revisions}


async def revert(call: Call) -> str:
    if call.argument == _KERNEL:
        raise RefusedSilentlyError("a kernel has no revisions")
    volume, revision = _volume(call), call.payload_text().strip()
    number = _revisions(call, volume).get(revision)
    if number is None:
        raise RefusedSilentlyError(f"no revision {revision!r}")
    await call.api.volumes.revert(call.destination, volume.name, number)
    return ""


async def resize(call: Call) -> str:
    volume = _volume(call)
    size = parse_size(call.payload_text().strip())
    await call.api.volumes.resize(call.destination, volume.name, size)
    return ""


async def clear(call: Call) -> str:
    await call.api.volumes.clear(call.destination, _volume(call).name)
    return ""


async def clone_from(call: Call) -> str:
    return call.api.volumes.clone_from(call.destination, _volume(call).name)


async def clone_to(call: Call) -> str:
    name = _volume(call).name
    await call.api.volumes.clone_to(call.destination, name, call.payload_text())
    return ""


async def set_revisions_to_keep(call: Call) -> str:
    name, count = _volume(call).name, parse_count(call.payload_text())
    await call.api.volumes.keep_revisions(call.destination, name, count)
    return ""


async def set_rw(call: Call) -> str:
    name, rw = _volume(call).name, _boolean(call)
    await call.api.volumes.set_rw(call.destination, name, rw=rw)
    return ""


async def set_ephemeral(call: Call) -> str:
    name, ephemeral = _volume(call).name, _boolean(call)
    await call.api.volumes.set_ephemeral(call.destination, name, ephemeral=ephemeral)
    return ""


async def import_begin(call: Call) -> str:
    """`SIZE PATH`: how many bytes are to be written where."""
    name, text = _volume(call).name, call.payload_text()
    size = parse_size(text) if text else None
    wanted, path = await call.api.volumes.begin_import(call.destination, name, size)
    return f"{wanted} {path}"


async def import_end(call: Call) -> str:
    name, text = _volume(call).name, call.untrusted_payload.decode("ascii", "replace")
    verdict, _, why = text.partition("\n")
    if verdict not in ("ok", "fail"):
        raise RefusedSilentlyError(f"neither ok nor fail: {verdict!r}")
    failure = None if verdict == "ok" else why
    await call.api.volumes.end_import(call.destination, name, failure)
    return ""


def parse_size(text: str) -> int:
    """A size or a count (admin-api.md section 3.1).

    Raises:
        RefusedSilentlyError: it is not written as one.
    """
    if _SIZE.fullmatch(text) is None:
        raise RefusedSilentlyError(f"not a size: {text!r}")
    return int(text)


def parse_count(text: str) -> int:
    """A count, which may be negative.

    Raises:
        RefusedSilentlyError: it is not written as one.
    """
    return -parse_size(text[1:]) if text.startswith("-") else parse_size(text)


def _boolean(call: Call) -> bool:
    try:
        return truth(call.payload_text())
    except ValueRefusedError as error:
        raise RefusedSilentlyError(str(error)) from None


def _vid_of(call: Call, volume: Volume) -> str:
    return call.api.volumes.vid(call.api.world.system.qubes[volume.owner], volume.name)


async def _kernel_info(call: Call) -> str:
    system, kernels = call.api.world.system, call.api.world.kernels
    name = str(value_of(system, call.destination, "kernel") or "")
    size, pool = 0, default_pool(system, KERNEL_DEFAULT)
    if name:
        try:
            pool = kernels.pool_of(name)
            size = await asyncio.to_thread(_size, kernels.find(name))
        except StorageError:
            size = 0  # It was removed from the pool; a start says so.
    return lines(
        {
            "pool": pool,
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
            "is_outdated": False,
        }
    )


def _size(files: tuple[Path, ...]) -> int:
    return sum(file.stat().st_size for file in files)


def lines(fields: dict[str, object]) -> str:
    """Fields as `key=value` lines."""
    return "".join(f"{key}={value}\n" for key, value in fields.items())


METHODS = {
    "admin.vm.volume.List": Method(run=list_volumes),
    "admin.vm.volume.Info": Method(run=info, argument=True),
    "admin.vm.volume.ListSnapshots": Method(run=list_snapshots, argument=True),
    "admin.vm.volume.Revert": Method(run=revert, argument=True, payload=True),
    "admin.vm.volume.Resize": Method(run=resize, argument=True, payload=True),
    "admin.vm.volume.Clear": Method(run=clear, argument=True),
    "admin.vm.volume.CloneFrom": Method(run=clone_from, argument=True),
    "admin.vm.volume.CloneTo": Method(run=clone_to, argument=True, payload=True),
    "admin.vm.volume.Set.revisions_to_keep": Method(
        run=set_revisions_to_keep, argument=True, payload=True
    ),
    "admin.vm.volume.Set.rw": Method(run=set_rw, argument=True, payload=True),
    "admin.vm.volume.Set.ephemeral": Method(run=set_ephemeral, argument=True, payload=True),
}
IMPORTS = {
    "internal.vm.volume.ImportBegin": Method(run=import_begin, argument=True, payload=True),
    "internal.vm.volume.ImportEnd": Method(run=import_end, argument=True, payload=True),
}
