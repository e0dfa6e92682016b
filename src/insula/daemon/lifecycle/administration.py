"""Qubes made and removed."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from insula.daemon.lifecycle.world import World
from insula.daemon.model.changes import set_feature, set_property, users_of
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import (
    NotHaltedError,
    PropertyValueError,
    QubeInUseError,
    QubeNotFoundError,
    RefusedError,
    ValueRefusedError,
)
from insula.daemon.model.features import DEFERRED_NETVM, add_tag
from insula.daemon.model.following import follow_with_tags
from insula.daemon.model.layout import volumes_of
from insula.daemon.model.placing import placed
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.qube import Qube, QubeClass, Value, check_name
from insula.daemon.model.system import System

_DISPIDS = 10_000
_DISPID_TRIES = 100
# What a disposable does not take over from its template.
_OWN = frozenset(("name", "uuid", "qid", "dispid", "template", "template_for_dispvms"))
_OWN_FEATURES = "preload-dispvm"
_CREATED_GUIVM = "set-created-guivm"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewQube:
    """A qube that is to be made. label: None takes the template's. creator: who has it made.

    pools: those chosen for its volumes; others lie where the system's properties say.
    """

    klass: QubeClass
    name: str
    label: str | None
    template: Qube | None
    creator: Qube
    auto_cleanup: bool = False
    fleeting: bool = False
    dispid: int | None = None
    pools: Mapping[str, str] = field(default_factory=dict)


class Administration:
    """Makes and removes qubes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._former_dispids: set[int] = set()

    async def create(self, new: NewQube) -> Qube:
        """Make a qube, its entry and its volumes.

        Raises:
            ReportableError: its name is taken or no name, its template does not fit, or it could
                not be kept; nothing was made.
        """
        world = self._world
        qube: Qube | None = None
        try:
            async with world.editing() as edit:
                qube = self._made(edit.system, new)
                edit.add(qube)
                edit.tell(None, "domain-add", vm=qube.name)
                _introduce(edit, qube, new.creator)
                await world.storage.create(*qube.volumes.values())
                edit.tell(qube, "domain-create-on-disk")
        except BaseException:
            if qube is not None and qube.uuid not in world.system.qubes:
                await self._remove_files(qube)
            raise
        return qube

    async def create_disposable(
        self, template: Qube, creator: Qube, *, fleeting: bool = False
    ) -> Qube:
        """Make a disposable that vanishes when it ends; it is not started. fleeting: as in Qube.

        Raises:
            RefusedError: disposables may not be made from template.
        """
        if not template.properties.get("template_for_dispvms"):
            raise RefusedError(
                f"Qube {template.name} is not a disposable template",
                f"Make it one: qvm-prefs {template.name} template_for_dispvms True",
            )
        dispid = self._free_dispid()
        return await self.create(
            NewQube(
                klass=QubeClass.DISPOSABLE,
                name=f"disp{dispid}",
                label=None,
                template=template,
                creator=creator,
                auto_cleanup=True,
                fleeting=fleeting,
                dispid=dispid,
            )
        )

    async def remove(self, qube: Qube) -> None:
        """Remove a halted qube that nothing refers to, and all its volumes.

        Raises:
            ReportableError: it is dom0, runs, or is used; nothing was removed.
        """
        world = self._world
        if qube.klass is QubeClass.ADMIN:
            raise QubeInUseError("The admin domain cannot be removed")
        self._check_removable(qube)  # Before the lock, which is held while it starts.
        async with world.lock(qube.uuid):
            async with world.editing() as edit:
                self._check_removable(qube)
                if used := users_of(world.system, qube):
                    raise QubeInUseError(f"Qube {qube.name} is in use: {'; '.join(used)}")
                edit.tell(None, "domain-pre-delete", vm=qube.name)
                edit.remove(qube)
                edit.tell(None, "domain-delete", vm=qube.name)
            await self._remove_files(qube)
        world.events.tell(qube, "domain-remove-from-disk")

    def _check_removable(self, qube: Qube) -> None:
        if qube.uuid not in self._world.system.qubes:
            raise QubeNotFoundError(qube.name)
        if qube.properties.get("installed_by_rpm"):
            error = QubeInUseError(f"Qube {qube.name} belongs to a package")
            error.hint = f"Take it over: qvm-prefs {qube.name} installed_by_rpm False"
            raise error
        if not qube.halted:
            raise NotHaltedError(qube.name)

    async def _remove_files(self, qube: Qube) -> None:
        try:
            await self._world.storage.remove(qube.uuid)
        except OSError as error:
            log.warning("files of a removed qube stay", extra={"why": str(error)})

    def _made(self, system: System, new: NewQube) -> Qube:
        check_name(new.name)
        if system.has_name(new.name):
            raise ValueRefusedError(f"A qube named {new.name} exists already")
        if new.creator.uuid not in system.qubes:
            raise QubeNotFoundError(new.creator.name)
        template = new.template
        if template is not None:
            _check_template(system, new.klass, template)
        uuid = uuid4()
        qube = Qube(
            uuid=uuid,
            qid=system.free_qid(),
            name=new.name,
            klass=new.klass,
            label=new.label or (template.label if template is not None else "red"),
            volumes=placed(
                system, new.klass, volumes_of(new.klass, uuid, template), template, new.pools
            ),
            fleeting=new.fleeting,
        )
        if template is not None:
            qube.properties["template"] = template.uuid
        if new.klass is QubeClass.DISPOSABLE and template is not None:
            _take_over(qube, template)
            qube.properties["dispid"] = self._free_dispid() if new.dispid is None else new.dispid
            if new.auto_cleanup:
                qube.properties["auto_cleanup"] = True
        return qube

    def _free_dispid(self) -> int:
        system = self._world.system
        taken = {qube.properties.get("dispid") for qube in system.qubes.values()}
        for _ in range(_DISPID_TRIES):
            dispid = secrets.randbelow(_DISPIDS)
            if (
                dispid in taken
                or dispid in self._former_dispids
                or system.has_name(f"disp{dispid}")
            ):
                continue
            self._former_dispids.add(dispid)
            if len(self._former_dispids) > _DISPIDS // 2:
                self._former_dispids.clear()
            return dispid
        raise RefusedError(
            "There is no free number for another disposable", "Remove some: qvm-remove NAME"
        )


def _introduce(edit: Edit, qube: Qube, creator: Qube) -> None:
    """What every new qube gets."""
    add_tag(edit, qube, f"created-by-{creator.name}")
    if qube.properties.get("auto_cleanup"):
        add_tag(edit, qube, f"disp-created-by-{creator.name}")
    for tag in creator.features.get("tag-created-vm-with", "").split():
        add_tag(edit, qube, tag)
    if edit.system.properties.get("check_updates_vm") is False:
        set_feature(edit, qube, "check-updates", "")
    prop = BY_CLASS[qube.klass].get("guivm")
    if prop is not None and (name := creator.features.get(_CREATED_GUIVM)):
        set_property(edit, qube, prop, prop.parse(edit.system, qube, name))
    follow_with_tags(edit, qube)


def _check_template(system: System, klass: QubeClass, template: Qube) -> None:
    """Refuse a template of the wrong kind; creation differs from a change in nothing else."""
    if template.uuid not in system.qubes:
        raise QubeNotFoundError(template.name)
    if klass is QubeClass.APP and template.klass is not QubeClass.TEMPLATE:
        raise PropertyValueError(f"Qube {template.name} is not a template")
    if klass is QubeClass.DISPOSABLE and not template.properties.get("template_for_dispvms"):
        error = PropertyValueError(f"Qube {template.name} is not a disposable template")
        error.hint = f"Make it one: qvm-prefs {template.name} template_for_dispvms True"
        raise error


def _take_over(qube: Qube, template: Qube) -> None:
    """Give a disposable what was set on its template (admin-api.md section 8.4)."""
    known = BY_CLASS[qube.klass]
    inherited: dict[str, Value] = {
        name: value
        for name, value in template.properties.items()
        if name in known and name not in _OWN
    }
    qube.properties.update(inherited)
    qube.features.update(
        (name, value)
        for name, value in template.features.items()
        if not name.startswith(_OWN_FEATURES) and name != DEFERRED_NETVM
    )
    qube.tags |= template.tags
    qube.firewall = template.firewall
