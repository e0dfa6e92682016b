"""Disposables started ahead of their use and paused (admin-api.md section 8.4).

What a template has is brought to what it should have in rounds. Whatever may have changed that only
asks for a round; so no trigger needs to know what another one has done already.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from insula.daemon.lifecycle.administration import Administration
from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.preloading_triggers import Triggers
from insula.daemon.lifecycle.world import World
from insula.daemon.model import members
from insula.daemon.model.changes import users_of
from insula.daemon.model.edit import Edit
from insula.daemon.model.errors import QubeNotFoundError, RefusedError
from insula.daemon.model.features import add_tag, drop_feature, put_feature, remove_tag
from insula.daemon.model.preloading import differs
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.model.volume import Volume
from insula.daemon.rpc.services import call_service
from insula.protocol.errors import ReportableError

SERVICE = "qubes.WaitForRunningSystem"
_PATIENCE = 1.2  # of qrexec_timeout, that a request waits for one that only starts
_SHORTEST_GAP = 5.0  # seconds after a request that found none
_OUTDATED = 2.0  # seconds until one that is outdated is removed
_TAGS = ("created-by-", "disp-created-by-")
_MIB = 1 << 20

log = logging.getLogger(__name__)


class Preloading:
    """Keeps disposables ready.

    volume_is_outdated: whether a qube's snapshot is behind its source.
    """

    def __init__(
        self,
        world: World,
        power: Power,
        administration: Administration,
        volume_is_outdated: Callable[[Qube, Volume], bool],
    ) -> None:
        self._world = world
        self._power = power
        self._administration = administration
        self._volume_is_outdated = volume_is_outdated
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._planned: dict[tuple[UUID, str], asyncio.TimerHandle] = {}
        self._starting: dict[UUID, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asleep = True
        self._triggers = Triggers(
            world.system,
            plan=self._plan,
            renew=lambda template: self._spawn(self._renew(template)),
            used=lambda template, qube: self._spawn(self._used_by_hand(template, qube)),
        )

    async def begin(self) -> None:
        """Remove what an earlier daemon left half done, and have the rounds begin."""
        system = self._world.system
        self._world.events.add(self._triggers.hear)
        for template in members.templates_with(system):
            await self._clear(template)
        for qube in tuple(system.qubes.values()):
            marked = {members.IN_PROGRESS, members.COMPLETED} & qube.features.keys()
            if marked and not members.is_preloaded(system, qube):
                await self._remove(qube)
        self.wake("boot")

    async def close(self) -> None:
        """Begin nothing any more. Those that wait go on waiting, for the next daemon."""
        self._asleep = True
        with suppress(ValueError):
            self._world.events.remove(self._triggers.hear)
        for handle in self._planned.values():
            handle.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sleep(self) -> None:
        """Drop all that wait: the host is about to sleep."""
        self._asleep = True
        for template in members.templates_with(self._world.system):
            await self._drop(template, members.members_of(template))

    def wake(self, reason: str = "resume") -> None:
        """Have the rounds begin, or go on."""
        self._asleep = False
        for template in members.templates_with(self._world.system):
            self._plan(template, reason)

    async def before_removal(self, template: Qube) -> None:
        """Remove all that wait if nothing else keeps their template from being removed."""
        names = members.members_of(template)
        if not names or not template.halted or template.properties.get("installed_by_rpm"):
            return
        if not users_of(self._world.system, template, besides=names):
            await self._drop(template, names)

    async def fill(self, template: Qube, reason: str, delay: float | None = None) -> None:
        """Bring what waits to what should; returns when it does, or cannot."""
        world, told = self._world, False
        async with self._locks.setdefault(template.uuid, asyncio.Lock()):
            await self._clear(template)
            while not self._asleep and self._lacks(template):
                if not told:
                    fields = {} if delay is None else {"delay": delay}
                    world.events.tell(
                        template, "domain-preload-dispvm-start", reason=reason, **fields
                    )
                    told = True
                if not await self._preload(template):
                    return

    async def take(self, template: Qube, source: Qube, *, fleeting: bool = False) -> Qube | None:
        """One that waits, running and source's from now on; None where there is none.

        fleeting: as in Qube.
        """
        system = self._world.system
        if self._asleep:
            return None
        for name in members.members_of(template):
            qube = system.named(name) if system.has_name(name) else None
            if qube is None or self._is_outdated(template, qube):
                await self._drop(template, [name], after=_OUTDATED)
            elif await self._use(template, qube, source, fleeting=fleeting):
                return qube
        if members.limit_of(system, template):
            delay = max(_SHORTEST_GAP, members.delay_of(system, template))
            self._plan(template, "gap", delay)
        return None

    async def _use(self, template: Qube, qube: Qube, source: Qube, *, fleeting: bool) -> bool:
        """Take a member; False when somebody else did, or it does not come up."""
        world = self._world
        async with world.editing() as edit:
            if qube.name not in members.members_of(template):
                return False
            members.forget(edit, template, qube.name)
            self._tell_used(edit, template, qube)
        try:
            if (starting := self._starting.get(qube.uuid)) is not None:
                async with asyncio.timeout(_PATIENCE * self._timeout(qube)):
                    await starting.wait()
            async with world.editing() as edit:
                if qube.uuid not in world.system.qubes:
                    return False
                edit.touch(qube).fleeting = fleeting
                members.drop_marks(edit, template, qube)
                _give(edit, qube, source)
            if qube.power is PowerState.PAUSED:
                await self._power.unpause(qube)
            if qube.power is PowerState.RUNNING:
                return True
        except (ReportableError, TimeoutError) as error:
            log.warning("a disposable cannot be used", extra={"qube": qube.name, "why": str(error)})
        except BaseException:
            self._spawn(self._remove(qube))  # Whoever asked is gone, and it is nobody's.
            raise
        await self._remove(qube)
        return False

    def _tell_used(self, edit: Edit, template: Qube, qube: Qube) -> None:
        """Tell that a member is used, and plan for another in its place."""
        delay = members.delay_of(edit.system, template)
        edit.tell(template, "domain-preload-dispvm-used", dispvm=qube.name, delay=delay)
        if delay >= 0:
            self._plan(template, "used", delay)
        elif not members.members_of(template):
            self._plan(template, "used")

    async def _used_by_hand(self, template: Qube, qube: Qube) -> None:
        async with self._world.editing() as edit:
            if qube.name not in members.members_of(template) or qube.uuid not in edit.system.qubes:
                return
            members.forget(edit, template, qube.name)
            members.drop_marks(edit, template, qube)
            self._tell_used(edit, template, qube)

    async def _preload(self, template: Qube) -> bool:
        """Start one more and have it wait; whether that came to be."""
        world, ready = self._world, asyncio.Event()
        try:
            # Fleeting, so that one which is no member yet does not outlive this daemon.
            qube = await self._administration.create_disposable(
                template, world.system.dom0, fleeting=True
            )
        except ReportableError as error:
            log.warning("no disposable made", extra={"qube": template.name, "why": str(error)})
            return False
        self._starting[qube.uuid] = ready
        try:
            async with world.editing() as edit:
                edit.touch(qube).fleeting = False
                for feature in (members.IN_PROGRESS, members.INTERNAL):
                    put_feature(edit, qube, feature, "1")
                members.set_members(edit, template, [*members.members_of(template), qube.name])
                edit.tell(qube, "property-reset:is_preload", name="is_preload")
            await self._power.start(qube)
            await self._wait_until_ready(qube)
            if qube.name in members.members_of(template):
                await self._power.pause(qube)
                async with world.editing() as edit:
                    if qube.name in members.members_of(template):
                        drop_feature(edit, qube, members.IN_PROGRESS)
                        put_feature(edit, qube, members.COMPLETED, "1")
        except ReportableError as error:
            log.warning("no disposable waits", extra={"qube": template.name, "why": str(error)})
            await self._drop(template, [qube.name])
            await self._remove(qube)
            return False
        finally:
            del self._starting[qube.uuid]
            ready.set()
        return True

    async def _wait_until_ready(self, qube: Qube) -> None:
        running = self._world.running.get(qube.uuid)
        if running is None:
            raise RefusedError(f"{qube.name} ended at once")
        done = await call_service(running.calls, SERVICE, timeout=self._timeout(qube))
        if done.code:
            raise RefusedError(f"{SERVICE} in {qube.name} ended with {done.code}")

    async def _renew(self, template: Qube) -> None:
        """Replace all that wait."""
        await self._drop(template, members.members_of(template))
        self._plan(template, "template")

    async def _clear(self, template: Qube) -> None:
        """Drop those that are too many, outdated, or not what they should be."""
        system = self._world.system
        if template.uuid not in system.qubes:
            return
        names = members.members_of(template)
        limit = members.limit_of(system, template)
        bad = set(names[limit:])
        for name in names[:limit]:
            qube = system.named(name) if system.has_name(name) else None
            if qube is None or not self._waits(qube) or self._is_outdated(template, qube):
                bad.add(name)
        if bad:
            await self._drop(template, bad)

    def _waits(self, qube: Qube) -> bool:
        waiting = members.COMPLETED in qube.features and qube.power is PowerState.PAUSED
        return waiting or qube.uuid in self._starting

    def _is_outdated(self, template: Qube, qube: Qube) -> bool:
        return differs(self._world.system, template, qube) or any(
            self._volume_is_outdated(qube, volume) for volume in qube.volumes.values()
        )

    def _lacks(self, template: Qube) -> bool:
        """Whether another is wanted, and there is memory for it."""
        system = self._world.system
        if template.uuid not in system.qubes or self._power.going_down:
            return False
        if len(members.members_of(template)) >= members.limit_of(system, template):
            return False
        memory = int(str(value_of(system, template, "memory"))) * _MIB
        return members.memory_left(system, available_memory()) >= memory

    async def _drop(self, template: Qube, names: Iterable[str], after: float = 0.0) -> None:
        """Let members be none, and remove them, in a while if that is given."""
        system, dropped = self._world.system, set(names)
        qubes = [system.named(name) for name in dropped if system.has_name(name)]
        async with self._world.editing() as edit:
            if template.uuid in system.qubes:
                kept = [name for name in members.members_of(template) if name not in dropped]
                members.set_members(edit, template, kept)
        for qube in qubes:
            if after:
                asyncio.get_running_loop().call_later(after, self._spawn_removal, qube)
            else:
                await self._remove(qube)

    def _spawn_removal(self, qube: Qube) -> None:
        if not self._power.going_down:
            self._spawn(self._remove(qube))

    async def _remove(self, qube: Qube) -> None:
        with suppress(ReportableError):
            await self._power.kill(qube)
        if qube.uuid in self._world.system.qubes:
            try:
                await self._administration.remove(qube)
            except QubeNotFoundError:
                return
            except ReportableError as error:
                log.warning("a disposable stays", extra={"qube": qube.name, "why": str(error)})

    def _timeout(self, qube: Qube) -> float:
        return float(str(value_of(self._world.system, qube, "qrexec_timeout")))

    def _plan(self, template: Qube, reason: str, delay: float = 0.0) -> None:
        """Have a round begin in a while; one that is planned for that reason stays."""
        key = template.uuid, reason
        if self._asleep or key in self._planned:
            return

        def begin() -> None:
            del self._planned[key]
            self._spawn(self.fill(template, reason, delay or None))

        self._planned[key] = asyncio.get_running_loop().call_later(delay, begin)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a round of preloading failed", exc_info=error)


def available_memory() -> int:
    """Bytes of memory that programs can have without others being swapped out."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return 0


def _give(edit: Edit, qube: Qube, source: Qube) -> None:
    """Have tags say whose a disposable is: not the daemon's, which made it."""
    dom0 = edit.system.dom0
    for prefix in _TAGS:
        if source is not dom0 and f"{prefix}{dom0.name}" in qube.tags:
            remove_tag(edit, qube, f"{prefix}{dom0.name}")
        add_tag(edit, qube, f"{prefix}{source.name}")
