"""What everything that happens to qubes needs: the system, where it is kept, what runs it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from insula.daemon.engine.interface import Engine
from insula.daemon.lifecycle.agent_volume import AgentVolume
from insula.daemon.lifecycle.events import Events
from insula.daemon.lifecycle.goldens import Goldens
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.model.changes import undone_on_failure
from insula.daemon.model.qube import Qube
from insula.daemon.model.system import System
from insula.daemon.storage.kernels import Kernels
from insula.daemon.storage.volumes import Storage
from insula.daemon.store.records import put_qube
from insula.daemon.store.store import Store
from insula.protocol.admin import Event

UID_BASE = 700_000_000
_UIDS_EACH = 16
_VIEWER_UID = 1


@dataclass(slots=True, kw_only=True)
class World:
    """An instance while its daemon runs.

    run: the instance's sockets.
    running: qubes whose machines run. xid: the highest domain number that was given.
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
    _locks: dict[UUID, asyncio.Lock] = field(default_factory=dict)

    def lock(self, uuid: UUID) -> asyncio.Lock:
        """The lock under which a qube is started, ended, removed or has its volumes changed."""
        return self._locks.setdefault(uuid, asyncio.Lock())

    def forget_lock(self, uuid: UUID) -> None:
        """After a qube was removed."""
        self._locks.pop(uuid, None)

    def next_xid(self) -> int:
        """A domain number that no qube had while this daemon ran."""
        self.xid += 1
        return self.xid

    async def change(self, qube: Qube, make: Callable[[], list[Event]]) -> None:
        """Make a change of a qube, keep it, and then tell of it; undone when it cannot be kept."""
        with undone_on_failure(qube):
            events = make()
            await self.store.write(put_qube(qube))
        self.events.send(events)


def machine_uid(qid: int) -> int:
    """The unprivileged user of a qube's virtual machine, where the instance runs as root."""
    return UID_BASE + _UIDS_EACH * qid


def viewer_uid(qid: int) -> int:
    """The unprivileged user of a qube's viewer, where the instance runs as root."""
    return machine_uid(qid) + _VIEWER_UID
