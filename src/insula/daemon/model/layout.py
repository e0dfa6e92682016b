"""Which volumes a qube of a class has (admin-api.md section 9.2). No I/O."""

from dataclasses import replace
from uuid import UUID

from insula.daemon.model.qube import Qube, QubeClass
from insula.daemon.model.volume import GIB, PRIVATE_SIZE, ROOT_SIZE, VOLATILE_SIZE, Volume

DISPOSABLE_VOLATILE_SIZE = 12 * GIB


def volumes_of(klass: QubeClass, owner: UUID, template: Qube | None) -> dict[str, Volume]:
    """The volumes of a new qube; a snapshot has its source's size."""
    if not klass.is_machine:
        return {}
    volatile = Volume(owner=owner, name="volatile", size=VOLATILE_SIZE)
    private = Volume(owner=owner, name="private", size=PRIVATE_SIZE, save_on_stop=True)
    if klass.has_own_root:
        root = Volume(owner=owner, name="root", size=ROOT_SIZE, save_on_stop=True)
    else:
        size = ROOT_SIZE if template is None else template.volumes["root"].size
        root = Volume(owner=owner, name="root", size=size, snap_on_start=True)
    if klass is QubeClass.DISPOSABLE:
        size = PRIVATE_SIZE if template is None else template.volumes["private"].size
        private = Volume(owner=owner, name="private", size=size, snap_on_start=True)
        volatile = replace(volatile, size=DISPOSABLE_VOLATILE_SIZE)
    return {"root": root, "private": private, "volatile": volatile}


def source_of(volume: Volume, template: Qube | None, root_template: Qube) -> Volume | None:
    """The volume that a snapshot begins from; None for one that is no snapshot."""
    if not volume.snap_on_start:
        return None
    holder = root_template if volume.name == "root" else template
    return None if holder is None else holder.volumes[volume.name]
