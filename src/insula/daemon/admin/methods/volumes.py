"""Volumes of qubes, as far as listings show them (admin-api.md section 4.7)."""

from insula.daemon.admin.calls import Call, Method
from insula.daemon.model.errors import RefusedSilentlyError
from insula.daemon.model.layout import source_of
from insula.daemon.model.properties.system_wide import POOL
from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.volume import Volume


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
    return "".join(f"{name}\n" for name in call.destination.volumes)


async def info(call: Call) -> str:
    volume = _volume(call)
    source = _source(call, call.destination, volume)
    fields = {
        "pool": POOL,
        "vid": _vid(call, volume),
        "size": volume.size if source is None else source.size,
        "usage": await call.api.world.storage.usage(volume),
        "rw": volume.rw,
        "source": "" if source is None else _vid(call, source),
        "path": "",  # layers reach the virtual machine as descriptors, never by a path
        "save_on_stop": volume.save_on_stop,
        "snap_on_start": volume.snap_on_start,
        "revisions_to_keep": volume.revisions_to_keep,
        "ephemeral": not volume.save_on_stop and volume.rw,
    }
    return "".join(f"{key}={value}\n" for key, value in fields.items())


async def list_snapshots(call: Call) -> str:
    return "".join(f"{revision.number}\n" for revision in _volume(call).revisions)


METHODS = {
    "admin.vm.volume.List": Method(run=list_volumes),
    "admin.vm.volume.Info": Method(run=info, argument=True),
    "admin.vm.volume.ListSnapshots": Method(run=list_snapshots, argument=True),
}
