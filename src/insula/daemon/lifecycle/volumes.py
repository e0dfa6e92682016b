"""Volumes of qubes changed as their administrators ask (admin-api.md sections 4.7 and 9)."""

import logging
import secrets
import string
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.world import World
from insula.daemon.model.changes import set_property
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import (
    NotHaltedError,
    NotRunningError,
    QubeNotFoundError,
    RefusedError,
    RefusedSilentlyError,
    ValueRefusedError,
)
from insula.daemon.model.layout import source_of
from insula.daemon.model.pool_options import check_revisions
from insula.daemon.model.properties.qubes import BY_CLASS
from insula.daemon.model.qube import PowerState, Qube, QubeClass
from insula.daemon.model.volume import IN_PLACE, Volume
from insula.daemon.rpc.services import call_service
from insula.daemon.storage.errors import DriverRefusedError, MissingFileError
from insula.daemon.storage.upkeep import rounded
from insula.daemon.storage.volumes import sized
from insula.protocol.errors import ReportableError

RESIZE_SERVICE = "qubes.ResizeDisk"
_TOKEN = string.ascii_letters + string.digits
_TOKEN_LENGTH = 32
_MOST_TOKENS = 1024
_CLONE_TRIES = 3
_IMPORT_ABANDONED = 300.0  # seconds without a byte after which another import may begin
_STANDALONE_MODE = "boot-mode.standalone-default"

log = logging.getLogger(__name__)


class Named(NamedTuple):
    """A volume by its qube and its name."""

    qube: UUID
    volume: str


@dataclass(frozen=True, slots=True)
class _Import:
    path: Path
    size: int


class Volumes:
    """Changes volumes; each change under its qube's lock, so that it neither starts nor ends."""

    def __init__(self, world: World, snapshots: Snapshots) -> None:
        self._world = world
        self._snapshots = snapshots
        self._tokens: dict[str, Named] = {}
        self._imports: dict[Named, _Import] = {}

    async def resize(self, qube: Qube, name: str, size: int) -> None:
        """Give a volume more room; a running qube's file system grows with it.

        Raises:
            DriverRefusedError: it cannot have that size, or only its file system did not grow.
        """
        world = self._world
        async with self._volume(qube, name) as volume:
            if volume.snap_on_start:
                error = DriverRefusedError(f"The {name} volume of {qube.name} is a snapshot")
                error.hint = f"It has its source's size: resize the {name} volume of its template"
                raise error
            wanted = size if size < volume.size else rounded(size)
            changed = await world.storage.resize(volume, wanted)
            async with world.editing() as edit:
                _put(edit, qube, changed)
            running = world.running.get(qube.uuid)
            if running is None:
                return
            try:
                await running.machine.resize(name, changed.size)
                if volume.save_on_stop:
                    if qube.power is not PowerState.RUNNING:
                        raise NotRunningError(qube.name)
                    done = await call_service(running.calls, RESIZE_SERVICE, f"{name}\n".encode())
                    if done.code:
                        raise RefusedError(f"{RESIZE_SERVICE} ended with {done.code}")
            except ReportableError as error:
                refused = DriverRefusedError(
                    f"Volume {name} of {qube.name} has {changed.size} bytes now, but its "
                    f"file system did not grow: {error}"
                )
                refused.hint = "It grows when the qube is started again"
                raise refused from error

    async def revert(self, qube: Qube, name: str, revision: int) -> None:
        """Go back to a former state.

        Raises:
            DriverRefusedError: the volume was written since its last commit.
        """
        async with self._volume(qube, name) as volume:
            await self._replace(qube, await self._world.storage.revert(volume, revision))

    async def clear(self, qube: Qube, name: str) -> None:
        """Let a volume be blank.

        Raises:
            DriverRefusedError: it is not one that is saved, or its qube runs.
        """
        async with self._volume(qube, name) as volume:
            _require_saved_kind(qube, volume)
            _require_halted(qube)
            told = self._world.events.tell
            told(qube, "domain-volume-import-begin", volume=name, size=volume.size)
            success = False
            try:
                await self._replace(qube, await self._world.storage.clear(volume))
                success = True
            finally:
                told(qube, "domain-volume-import-end", volume=name, success=success)

    def clone_from(self, qube: Qube, name: str) -> str:
        """A token with which a volume's state can be cloned once."""
        token = "".join(secrets.choice(_TOKEN) for _ in range(_TOKEN_LENGTH))
        if len(self._tokens) >= _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token] = Named(qube.uuid, name)
        return token

    async def clone_to(self, qube: Qube, name: str, token: str) -> None:
        """Give a volume the state of the one that a token stands for.

        Raises:
            RefusedSilentlyError: there is no such token, or what it stood for is gone.
            DriverRefusedError: the volume is not one that is saved, or was written.
        """
        named = self._tokens.pop(token, None)
        origin = None if named is None else self._world.system.find(named.qube)
        if named is None or origin is None or named.volume not in origin.volumes:
            raise RefusedSilentlyError("no such token")
        async with self._volume(qube, name) as volume:
            _require_saved_kind(qube, volume)
            cloned = await self._cloned(origin, named.volume, volume)
            source = self.vid(origin, named.volume)
            await self._replace(qube, cloned, imported=True)
            self._world.events.tell(qube, "domain-import-volume", name=name, source=source)

    async def _cloned(self, origin: Qube, name: str, volume: Volume) -> Volume:
        """A volume in the state of another, which may get a new one meanwhile."""
        for _ in range(_CLONE_TRIES):
            original = origin.volumes[name]
            if original.in_place and not origin.halted:
                raise DriverRefusedError(
                    f"Volume {name} of {origin.name} cannot be cloned while it is in use"
                )
            state = self._state(origin, original)
            try:
                return await self._world.storage.clone(state, volume)
            except BaseException as error:
                await self._world.storage.prune(volume)
                unchanged = self._state(origin, origin.volumes[name]) == state
                if unchanged or not isinstance(error, MissingFileError):
                    raise
        raise DriverRefusedError(f"Volume {name} of {origin.name} changes all the time")

    async def begin_import(self, qube: Qube, name: str, size: int | None) -> tuple[int, Path]:
        """How many bytes are to be written where, to become a volume's content.

        size: None for as many as the volume has.

        Raises:
            ReportableError: its qube is not halted, it is not one that is saved, or there is no
                room for it.
        """
        async with self._volume(qube, name) as volume:
            _require_halted(qube)
            _require_saved_kind(qube, volume)
            wanted = volume.size if size is None else size
            sized(volume, rounded(wanted))
            await self._require_no_import(qube, name)
            path = await self._world.storage.begin_import(volume, wanted)
            self._imports[Named(qube.uuid, name)] = _Import(path, wanted)
        self._world.events.tell(qube, "domain-volume-import-begin", volume=name, size=wanted)
        return wanted, path

    async def end_import(self, qube: Qube, name: str, failure: str | None) -> None:
        """Take over what was written, or drop it.

        Raises:
            RefusedError: it failed, be it only in the end; the volume is as it was.
        """
        begun = self._imports.pop(Named(qube.uuid, name), None)
        if begun is None:
            raise RefusedError(f"Nothing is being imported to volume {name} of {qube.name}")
        success = False
        try:
            async with self._volume(qube, name) as volume:
                try:
                    if failure is not None:
                        raise RefusedError(failure or "The import failed")
                    _require_halted(qube)
                    made = await self._world.storage.end_import(volume, begun.size)
                    await self._replace(qube, made, imported=True)
                finally:
                    await self._world.storage.prune(qube.volumes[name])
            success = True
        finally:
            self._world.events.tell(qube, "domain-volume-import-end", volume=name, success=success)

    async def keep_revisions(self, qube: Qube, name: str, count: int) -> None:
        """How many former states are kept; to and from IN_PLACE needs its users halted.

        Raises:
            ValueRefusedError: it is less than that. NotHaltedError: something runs.
        """
        async with self._volume(qube, name) as volume:
            check_revisions(self._world.system.pools[volume.pool].driver, count)
            before = volume.revisions_to_keep
            if count != before and IN_PLACE in (count, before):
                _require_halted(qube)
                if qube.klass is QubeClass.APP:
                    for disposable in self._world.system.made_from(qube):
                        _require_halted(disposable)
            await self._set(qube, replace(volume, revisions_to_keep=count))

    async def set_rw(self, qube: Qube, name: str, *, rw: bool) -> None:
        """Whether the qube may write a volume.

        Raises:
            NotHaltedError: the qube runs.
        """
        async with self._volume(qube, name) as volume:
            _require_halted(qube)
            await self._set(qube, replace(volume, rw=rw))

    async def set_ephemeral(self, qube: Qube, name: str, *, ephemeral: bool) -> None:
        """Whether a volume is encrypted under a throw-away key; what is thrown away always is.

        Raises:
            ValueRefusedError: something of it is wanted later.
        """
        async with self._volume(qube, name) as volume:
            if ephemeral and not volume.can_be_ephemeral:
                raise ValueRefusedError(f"What volume {name} of {qube.name} holds is wanted later")
            await self._set(qube, replace(volume, ephemeral=ephemeral))

    def vid(self, qube: Qube, name: str) -> str:
        """A volume's name in its pool."""
        folder = "vm-templates" if qube.klass is QubeClass.TEMPLATE else "appvms"
        return f"{folder}/{qube.name}/{name}"

    def source(self, qube: Qube, volume: Volume) -> Volume | None:
        """The volume that a snapshot begins from."""
        if not volume.snap_on_start:
            return None
        system = self._world.system
        return source_of(volume, system.find(qube.template), system.root_template(qube))

    def is_outdated(self, qube: Qube, volume: Volume) -> bool:
        """Whether a running qube's snapshot is of a state that is not its source's any more."""
        source = self.source(qube, volume)
        if source is None or qube.started is None:
            return False
        return source.committed > qube.started

    def _state(self, qube: Qube, volume: Volume) -> Volume:
        return self.source(qube, volume) or volume

    async def _require_no_import(self, qube: Qube, name: str) -> None:
        """Refuse a second import of a volume, unless the first was given up.

        The end of an import does not say which it is: that of the first, had it gone on, would be
        taken for that of the second.
        """
        begun = self._imports.get(Named(qube.uuid, name))
        if begun is None:
            return
        try:
            young = time.time() - begun.path.stat().st_mtime < _IMPORT_ABANDONED
            taken = young or await self._world.storage.is_being_written(begun.path)
        except (OSError, MissingFileError):
            return
        if taken:
            raise DriverRefusedError(f"Volume {name} of {qube.name} is being imported already")

    @asynccontextmanager
    async def _volume(self, qube: Qube, name: str) -> AsyncIterator[Volume]:
        """A volume while nothing else happens to its qube."""
        async with self._world.lock(qube.uuid):
            if qube.uuid not in self._world.system.qubes:
                raise QubeNotFoundError(qube.name)
            yield qube.volumes[name]

    async def _set(self, qube: Qube, volume: Volume) -> None:
        async with self._world.editing() as edit:
            _put(edit, qube, volume)

    async def _replace(self, qube: Qube, volume: Volume, *, imported: bool = False) -> None:
        """A volume has another state; what no state has any more is removed.

        imported: it comes from elsewhere.
        """
        try:
            async with self._world.editing() as edit:
                _put(edit, qube, volume)
                if imported and volume.name == "root" and qube.klass is QubeClass.STANDALONE:
                    _adopt_boot_mode(edit, qube)
        finally:
            await self._world.storage.prune(qube.volumes[volume.name])
        if volume.name == "root" and qube.klass.has_own_root:
            self._snapshots.refresh(qube)


def _put(edit: Edit, qube: Qube, volume: Volume) -> None:
    edit.touch(qube).volumes = {**qube.volumes, volume.name: volume}


def _adopt_boot_mode(edit: Edit, qube: Qube) -> None:
    """What a root was made to boot in when its qube stands alone is how it boots now."""
    if mode := qube.features.get(_STANDALONE_MODE):
        set_property(edit, qube, BY_CLASS[qube.klass]["bootmode"], mode)


def _require_halted(qube: Qube) -> None:
    if not qube.halted:
        raise NotHaltedError(qube.name)


def _require_saved_kind(qube: Qube, volume: Volume) -> None:
    if not volume.save_on_stop:
        raise DriverRefusedError(
            f"Volume {volume.name} of {qube.name} is not kept, so nothing can be put into it"
        )
