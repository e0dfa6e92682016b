"""Pools added, removed and changed as their administrators ask (admin-api.md section 4.6)."""

from dataclasses import replace
from pathlib import Path

from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import PoolInUseError, RefusedError, RefusedSilentlyError
from insula.daemon.model.placing import users_of_pool
from insula.daemon.model.pool_options import check_revisions
from insula.daemon.model.pools import Pool
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.storage.pools import Room, containing
from insula.protocol.errors import ReportableError

_MOST_TOLD = 5  # users of a pool that a refusal names


class Pools:
    """The pools of an instance."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def add(self, pool: Pool) -> None:
        """Let there be another pool.

        Raises:
            ReportableError: its directory cannot be one, or it could not be kept.
        """
        world = self._world
        try:
            async with world.editing() as edit:
                if pool.name in edit.system.pools:
                    raise RefusedSilentlyError(f"there is a pool {pool.name!r}")
                await world.storage.set_up(pool)
                edit.touch_pools()[pool.name] = pool
                edit.tell(None, "pool-add", pool=pool.name)
        except BaseException:
            if world.system.pools.get(pool.name) is not pool:
                await world.storage.leave(pool)
            raise
        world.kernels.use(pool)

    async def remove(self, pool: Pool) -> None:
        """Let there be one pool less; what else lies in its directory is left.

        Raises:
            PoolInUseError: volumes lie in it, or properties name it.
        """
        world = self._world
        async with world.editing() as edit:
            if edit.system.pools.get(pool.name) is not pool:
                raise RefusedSilentlyError(f"no pool {pool.name!r}")
            if used := [*users_of_pool(edit.system, pool), *self._booting_from(pool)]:
                more = f" and {len(used) - _MOST_TOLD} more" if len(used) > _MOST_TOLD else ""
                raise PoolInUseError(pool.name, ", ".join(used[:_MOST_TOLD]) + more)
            if pool.built_in:
                raise PoolInUseError(pool.name, "it belongs to the instance itself")
            edit.tell(None, "pool-pre-delete", pool=pool.name)
            del edit.touch_pools()[pool.name]
            edit.tell(None, "pool-delete", pool=pool.name)
        world.kernels.leave(pool)
        await world.storage.leave(pool)

    async def keep_revisions(self, pool: Pool, count: int) -> None:
        """How many revisions volumes that are made later keep."""
        if pool.holds_kernels:
            raise RefusedError(f"Pool {pool.name} holds kernels, of which no revisions are kept")
        kept = check_revisions(pool.driver, count)
        await self._change(replace(pool, revisions_to_keep=kept))

    async def set_ephemeral(self, pool: Pool, *, ephemeral: bool) -> None:
        """Whether volatile volumes that are made later are told to be encrypted."""
        if pool.holds_kernels:
            raise RefusedError(f"Pool {pool.name} holds kernels, and no volatile volumes")
        await self._change(replace(pool, ephemeral_volatile=ephemeral))

    async def room(self, pool: Pool) -> Room | None:
        """What its file system has; None where that is not known now."""
        try:
            return await self._world.storage.room(pool)
        except ReportableError:
            return None

    def directory(self, pool: Pool) -> Path:
        """Where it lies."""
        return self._world.storage.directory(pool)

    def included_in(self, pool: Pool) -> str | None:
        """The pool whose directory holds this one's."""
        others = [
            (other.name, self.directory(other))
            for other in self._world.system.pools.values()
            if other.name != pool.name
        ]
        return containing(self.directory(pool), others)

    def kernels(self, pool: Pool) -> tuple[str, ...]:
        """Names of the kernels in a pool."""
        return self._world.kernels.names(pool.name)

    async def _change(self, pool: Pool) -> None:
        world = self._world
        async with world.editing() as edit:
            if pool.name not in edit.system.pools:
                raise RefusedSilentlyError(f"no pool {pool.name!r}")
            edit.touch_pools()[pool.name] = pool
        world.storage.use(pool)

    def _booting_from(self, pool: Pool) -> list[str]:
        """Volumes of qubes whose kernels lie in a pool."""
        if not pool.holds_kernels:
            return []
        system, here = self._world.system, self._world.kernels.taken_from(pool.name)
        return [
            f"volume {qube.name}:kernel"
            for qube in system.in_order()
            if qube.klass.is_machine and value_of(system, qube, "kernel") in here
        ]
