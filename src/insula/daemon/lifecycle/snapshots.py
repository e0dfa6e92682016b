"""Which golden snapshots there should be, and when they are made anew, behind the scenes."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from insula.daemon.lifecycle.goldens import Basis, Golden
from insula.daemon.lifecycle.planning import basis_of, snapshot_basis
from insula.daemon.lifecycle.world import World
from insula.daemon.model.qube import Qube, QubeClass
from insula.protocol.errors import ReportableError

OLDEST = 24 * 3600.0  # seconds after which a snapshot is made anew
LOOK_EVERY = 600.0

log = logging.getLogger(__name__)


class Snapshots:
    """Finds a snapshot for a start, or has one made while the qube boots."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def for_start(self, basis: Basis | None) -> Golden | None:
        """The snapshot to start from; None to boot, which nothing waits for."""
        if basis is None:
            return None
        golden = self._world.goldens.find(basis)
        if golden is None:
            self._make(basis)
        return golden

    async def ensure(self, qube: Qube) -> str:
        """Make the snapshot that a qube, or those made from it, start from; returns its key.

        Raises:
            ReportableError: it could not be made.
        """
        await self._world.agent.ready()
        key = ""
        for basis in self._bases(qube).values():
            key = (await self._world.goldens.ensure(basis)).key
        return key

    def refresh(self, template: Qube) -> None:
        """A template's root has changed: make its snapshots anew and drop those before."""
        self._spawn(f"template {template.uuid}", self._refreshed(template))

    def wanted(self) -> set[str]:
        """Keys of all snapshots that some qube would start from."""
        return set(self._all_bases())

    async def sweep(self) -> None:
        """Remove snapshots that nothing starts from any more, unless one is being made."""
        if not self._world.goldens.building():
            await self._world.goldens.sweep(self.wanted())

    async def keep_fresh(self) -> None:
        """Make snapshots anew that are a day old, and clear away those before; never returns."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.renew()
            except (ReportableError, OSError) as error:
                log.warning("snapshots were not looked after", extra={"why": str(error)})

    async def renew(self) -> None:
        """Make those anew that are too old.

        Raises:
            ReportableError, OSError: the look failed.
        """
        goldens = self._world.goldens
        await self._world.agent.ready()
        for basis in self._all_bases().values():
            golden = goldens.find(basis)
            if golden is not None and goldens.age(golden) > OLDEST:
                await goldens.make(basis)
        await self.sweep()

    async def close(self) -> None:
        """Give up what is being made."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._world.goldens.close()

    def _all_bases(self) -> dict[str, Basis]:
        found: dict[str, Basis] = {}
        for qube in self._world.system.qubes.values():
            found |= self._bases(qube)
        return found

    def _bases(self, qube: Qube) -> dict[str, Basis]:
        """What snapshots are made from, by their keys, of a qube and of those made from it."""
        world, found = self._world, {}
        bases = [snapshot_basis(world, qube) if _is_source(qube) else None]
        bases += [_basis_or_none(world, one) for one in (qube, *world.system.made_from(qube))]
        for basis in bases:
            if basis is not None:
                found[basis.key(world.engine)] = basis
        return found

    def _make(self, basis: Basis) -> None:
        self._spawn(basis.key(self._world.engine), self._made(basis))

    def _spawn(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Do it in the background, unless the same is being done."""
        if key in self._tasks:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks[key] = task
        task.add_done_callback(lambda _done: self._tasks.pop(key, None))
        task.add_done_callback(_log_failure)

    async def _refreshed(self, template: Qube) -> None:
        try:
            await self._world.agent.ready()
        except ReportableError as error:
            log.warning("no snapshot was made", extra={"why": str(error)})
            return
        for basis in self._bases(template).values():
            self._make(basis)

    async def _made(self, basis: Basis) -> None:
        try:
            await self._world.goldens.ensure(basis)
            await self.sweep()
        except ReportableError as error:
            log.warning("no snapshot was made", extra={"why": str(error)})


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("no snapshot was made", exc_info=error)


def _basis_or_none(world: World, qube: Qube) -> Basis | None:
    """The basis of a qube that may be broken, as by a kernel that was removed."""
    try:
        return basis_of(world, qube)
    except ReportableError:
        return None


def _is_source(qube: Qube) -> bool:
    """Whether other qubes start from what is made of this one's root."""
    return qube.klass is QubeClass.TEMPLATE or bool(
        qube.klass is QubeClass.STANDALONE and qube.properties.get("template_for_dispvms")
    )
