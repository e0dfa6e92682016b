"""Qubes made and removed."""

import logging
import secrets
from dataclasses import dataclass
from uuid import uuid4

from insula.daemon.lifecycle.world import World
from insula.daemon.model.changes import add_tag, follow_with_tags, users_of
from insula.daemon.model.errors import (
    NotHaltedError,
    QubeInUseError,
    QubeNotFoundError,
    QubeStateError,
    ValueRefusedError,
)
from insula.daemon.model.layout import volumes_of
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.qube import Qube, QubeClass, Value, check_name
from insula.daemon.store.records import drop_qube, put_qube
from insula.protocol.admin import Event

_DISPIDS = 10_000
_DISPID_TRIES = 100
# What a disposable does not take over from its template.
_OWN = frozenset(("name", "uuid", "qid", "dispid", "template", "template_for_dispvms"))
_OWN_FEATURES = "preload-dispvm"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewQube:
    """A qube that is to be made. label: None takes the template's. creator: its qube's name."""

    klass: QubeClass
    name: str
    label: str | None
    template: Qube | None = None
    creator: str = "dom0"
    auto_cleanup: bool = False
    dispid: int | None = None


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
        qube = self._made(new)
        world.system.qubes[qube.uuid] = qube
        try:
            events = self._introduce(qube, new.creator)
            await world.storage.create(*qube.volumes.values())
            await world.store.write(put_qube(qube))
        except BaseException:
            del world.system.qubes[qube.uuid]
            await world.storage.remove(qube.uuid)
            raise
        world.events.tell(None, "domain-add", vm=qube.name)
        world.events.send(events)
        world.events.tell(qube, "domain-create-on-disk")
        return qube

    async def create_disposable(self, template: Qube, creator: str) -> Qube:
        """Make a disposable that vanishes when it ends; it is not started.

        Raises:
            QubeStateError: disposables may not be made from template.
        """
        if not template.properties.get("template_for_dispvms"):
            error = QubeStateError(f"Qube {template.name} is not a disposable template")
            error.hint = f"Make it one: qvm-prefs {template.name} template_for_dispvms True"
            raise error
        dispid = self._free_dispid()
        return await self.create(
            NewQube(
                klass=QubeClass.DISPOSABLE,
                name=f"disp{dispid}",
                label=None,
                template=template,
                creator=creator,
                auto_cleanup=True,
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
        async with world.lock(qube.uuid):
            if qube.uuid not in world.system.qubes:
                raise QubeNotFoundError(qube.name)
            if qube.properties.get("installed_by_rpm"):
                raise QubeInUseError(f"Qube {qube.name} belongs to a package")
            if not qube.halted:
                raise NotHaltedError(qube.name)
            if used := users_of(world.system, qube):
                raise QubeInUseError(f"Qube {qube.name} is in use: {'; '.join(used)}")
            world.events.tell(None, "domain-pre-delete", vm=qube.name)
            await world.store.write(drop_qube(qube.uuid))
            del world.system.qubes[qube.uuid]
            world.events.tell(None, "domain-delete", vm=qube.name)
        world.forget_lock(qube.uuid)
        try:
            await world.storage.remove(qube.uuid)
        except OSError as error:
            log.warning("files of a removed qube stay", extra={"why": str(error)})
        world.events.tell(qube, "domain-remove-from-disk")

    def _made(self, new: NewQube) -> Qube:
        system = self._world.system
        check_name(new.name)
        if any(qube.name == new.name for qube in system.qubes.values()):
            raise ValueRefusedError(f"A qube named {new.name} exists already")
        uuid = uuid4()
        qube = Qube(
            uuid=uuid,
            qid=system.free_qid(),
            name=new.name,
            klass=new.klass,
            label=new.label or (new.template.label if new.template is not None else "red"),
            volumes=volumes_of(new.klass, uuid, new.template),
        )
        if new.template is not None:
            _check_template(qube, new.template)
            qube.properties["template"] = new.template.uuid
        if new.klass is QubeClass.DISPOSABLE and new.template is not None:
            _take_over(qube, new.template)
            qube.properties["dispid"] = self._free_dispid() if new.dispid is None else new.dispid
            if new.auto_cleanup:
                qube.properties["auto_cleanup"] = True
        return qube

    def _introduce(self, qube: Qube, creator: str) -> list[Event]:
        """Tags that every new qube gets."""
        system = self._world.system
        events = add_tag(qube, f"created-by-{creator}")
        if qube.properties.get("auto_cleanup"):
            events += add_tag(qube, f"disp-created-by-{creator}")
        for tag in system.named(creator).features.get("tag-created-vm-with", "").split():
            events += add_tag(qube, tag)
        return events + follow_with_tags(system, qube)

    def _free_dispid(self) -> int:
        taken = {qube.properties.get("dispid") for qube in self._world.system.qubes.values()}
        for _ in range(_DISPID_TRIES):
            dispid = secrets.randbelow(_DISPIDS)
            if dispid not in taken and dispid not in self._former_dispids:
                self._former_dispids.add(dispid)
                if len(self._former_dispids) > _DISPIDS // 2:
                    self._former_dispids.clear()
                return dispid
        raise QubeStateError("There is no free number for another disposable")


def _check_template(qube: Qube, template: Qube) -> None:
    """Refuse a template of the wrong kind; creation differs from a change in nothing else."""
    if "template" not in BY_CLASS[qube.klass]:
        raise ValueRefusedError(f"A {qube.klass} has no template")
    if qube.klass is QubeClass.APP and template.klass is not QubeClass.TEMPLATE:
        raise ValueRefusedError(f"Qube {template.name} is not a template")
    if qube.klass is QubeClass.DISPOSABLE and not template.properties.get("template_for_dispvms"):
        raise ValueRefusedError(f"Qube {template.name} is not a disposable template")


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
        if not name.startswith(_OWN_FEATURES)
    )
    qube.tags |= template.tags
