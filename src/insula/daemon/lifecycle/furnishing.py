"""What a private volume that was never used begins with."""

from contextlib import suppress
from dataclasses import replace

from insula.daemon.lifecycle.goldens import Golden
from insula.daemon.lifecycle.world import World
from insula.daemon.model.machine import Layer
from insula.daemon.model.qube import Qube
from insula.daemon.model.volume import Volume
from insula.daemon.storage.errors import VolumeInUseError

_PRIVATE = "private"


async def furnish(world: World, qube: Qube, golden: Golden | None) -> None:
    """Give a qube's blank private volume, at its first start, the file system made beforehand.

    To make it in the qube would take longer than all else of its start. No revision is kept of the
    blank state: there is nothing in it to go back to.
    """
    volume = qube.volumes[_PRIVATE]
    if golden is None or not volume.save_on_stop or not _fits(volume, volume, golden):
        return
    with suppress(VolumeInUseError):  # It was started before, and its end was not seen.
        path = golden.private.path
        made = await world.storage.import_image(volume, path, golden.private.format)
        async with world.editing() as edit:
            volumes = {**qube.volumes, _PRIVATE: replace(made, revisions=())}
            edit.touch(qube).volumes = volumes


def lowest_layers(
    volume: Volume, source: Volume | None, golden: Golden | None
) -> tuple[Layer, ...]:
    """Layers below what a throw-away volume of a qube writes, beside those of its source."""
    if golden is None or volume.save_on_stop:
        return ()
    if volume.name == "root":
        return (golden.layer,)
    if volume.name == _PRIVATE and _fits(volume, source or volume, golden):
        return (golden.private,)
    return ()


def _fits(volume: Volume, state: Volume, golden: Golden) -> bool:
    """Whether a volume is blank, and large enough for the file system that was made."""
    return not state.layers and volume.size >= golden.sizes.get(_PRIVATE, volume.size + 1)
