"""What everything that happens to qubes needs: the system, where it is kept, what runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID
from weakref import WeakValueDictionary

from insula.daemon.engine.interface import Engine
from insula.daemon.lifecycle.agent_volume import AgentVolume
from insula.daemon.lifecycle.events import Events
from insula.daemon.lifecycle.goldens import Goldens
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.waiting import through
from insula.daemon.model.edit import Edit
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System
from insula.daemon.storage.kernels import Installed, Kernels, Options
from insula.daemon.storage.volumes import Storage
from insula.daemon.store.records import (
    Change,
    drop_label,
    drop_pool,
    drop_qube,
    drop_setting,
    put_label,
    put_pool,
    put_qube,
    put_setting,
)
from insula.daemon.store.store import Store

UID_BASE = 700_000_000
_UIDS_EACH = 16
_VIEWER_UID = 1
_UPLINK_UID = 2


@dataclass(slots=True, kw_only=True)
class World:
    """An instance while its daemon runs.

    run: the instance's sockets.
    running: qubes whose machines run. xid: the highest domain number that was given.
    untrusted_written: what running qubes wrote to their QubesDB.
    departed: qubes of whose removal is being told, by name.
    """

    system: System
    store: Store
    events: Events
    storage: Storage
    kernels: Kernels
    engine: Engine
    goldens: Goldens
    agent: AgentVolume
    run: Path
    running: dict[UUID, RunningQube] = field(default_factory=dict)
    xid: int = 0
    untrusted_written: dict[UUID, dict[str, str]] = field(default_factory=dict)
    departed: dict[str, Qube] = field(default_factory=dict)
    _editing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _locks: WeakValueDictionary[UUID, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        for pool in self.system.pools.values():
            self.storage.use(pool)
            self.kernels.use(pool)
        self.system.kernels = Installed(self.kernels)
        self.system.kernel_options = Options(self.kernels)

    def lock(self, uuid: UUID) -> asyncio.Lock:
        """The lock under which a qube is started, ended, removed or has its volumes changed."""
        return self._locks.setdefault(uuid, asyncio.Lock())

    def next_xid(self) -> int:
        """A domain number that no qube had while this daemon ran."""
        self.xid += 1
        return self.xid

    @asynccontextmanager
    async def editing(self, *also: Change) -> AsyncIterator[Edit]:
        """Change the system in the block: what it did is kept as a whole, and only then told of.

        When the block fails, or what it did cannot be kept, all of it is undone. One change at a
        time, so that none is made upon another that comes to nothing. also: what is kept with it.
        """
        async with self._editing:
            edit = Edit(self.system)
            try:
                yield edit
                writing = self.store.submit(*_kept(edit), *also)
                cancelled = await through(writing)
                writing.result()
            except BaseException:
                edit.undo()
                raise
            self.departed = {qube.name: qube for qube in edit.removed}
            try:
                self.events.send(edit.events)
            finally:
                self.departed = {}
            if cancelled:
                raise asyncio.CancelledError


def _kept(edit: Edit) -> list[Change]:
    """What makes an edit durable."""
    return [
        *(put_qube(qube) for qube in edit.changed),
        *(drop_qube(qube.uuid) for qube in edit.removed),
        *(put_setting(name, value) for name, value in edit.settings.items()),
        *(drop_setting(name) for name in edit.settings_dropped),
        *(put_pool(pool) for pool in edit.pools),
        *(drop_pool(name) for name in edit.pools_dropped),
        *(put_label(label) for label in edit.labels),
        *(drop_label(name) for name in edit.labels_dropped),
    ]


def machine_uid(qid: int) -> int:
    """The unprivileged user of a qube's virtual machine, where the instance runs as root."""
    return UID_BASE + _UIDS_EACH * qid


def viewer_uid(qid: int) -> int:
    """The unprivileged user of a qube's viewer, where the instance runs as root."""
    return machine_uid(qid) + _VIEWER_UID


def uplink_uid(qid: int) -> int:
    """The unprivileged user of a net qube's way out, where the instance runs as root."""
    return machine_uid(qid) + _UPLINK_UID
