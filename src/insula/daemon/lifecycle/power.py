"""Qubes up and down: started, shut down, killed, paused; and what follows when one is gone."""

import asyncio
import logging
import shutil
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from uuid import uuid4

from insula.daemon.lifecycle.planning import basis_of, order_of
from insula.daemon.lifecycle.running import (
    RunningQube,
    bring_up,
    machine_name,
    run_directory,
    take_over,
)
from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import (
    NotHaltedError,
    NotPausedError,
    NotRunningError,
    NotStartedError,
    QubeStateError,
    ShutdownTimeoutError,
)
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import PowerState, Qube, QubeClass
from insula.daemon.store.records import Run, drop_qube, drop_run, put_qube, put_run
from insula.protocol.errors import ReportableError

_FOLLOW_STATE = ("xid", "stubdom_xid", "start_time")

log = logging.getLogger(__name__)


class Power:
    """The lifecycle of every qube; each has its lock, so that nothing happens to one twice."""

    def __init__(self, world: World, snapshots: Snapshots) -> None:
        self._world = world
        self._snapshots = snapshots
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def start(self, qube: Qube) -> None:
        """Start a qube; nothing happens when it is not halted.

        Raises:
            ReportableError: it could not be started; nothing of it is left.
        """
        if qube.klass is QubeClass.ADMIN:
            raise NotHaltedError(qube.name, "is the admin domain and always runs")
        async with self._world.lock(qube.uuid):
            if qube.uuid in self._world.system.qubes and qube.halted:
                await self._start(qube)

    async def shutdown(self, qube: Qube, *, force: bool = False, wait: bool = False) -> None:
        """Ask a qube to end itself; wait: until it has, or shutdown_timeout is over.

        Raises:
            ReportableError: it is halted, paused (force kills it then), or did not end in time.
        """
        if qube.halted:
            raise NotStartedError(qube.name)
        if qube.power is PowerState.PAUSED:
            if not force:
                raise NotRunningError(qube.name, "is paused")
            await self.kill(qube)
            return
        running = self._running(qube)
        self._world.events.tell(qube, "domain-pre-shutdown", force=force)
        try:
            running.link.shutdown()
        except ReportableError as error:
            self._world.events.tell(qube, "domain-shutdown-failed", reason=error)
            raise
        self._enter(qube, PowerState.HALTING)
        if not wait:
            return
        timeout = float(str(value_of(self._world.system, qube, "shutdown_timeout")))
        try:
            async with asyncio.timeout(timeout):
                await self.until_halted(qube)
        except TimeoutError:
            self._world.events.tell(qube, "domain-shutdown-failed", reason="timeout")
            raise ShutdownTimeoutError(qube.name, timeout) from None

    async def kill(self, qube: Qube) -> None:
        """End a qube now; returns when nothing of it is left.

        Raises:
            ReportableError: it is not started, or cannot be ended.
        """
        if qube.klass is QubeClass.ADMIN:
            raise QubeStateError(f"Qube {qube.name} is the admin domain and cannot be ended")
        async with self._world.lock(qube.uuid):
            running = self._world.running.get(qube.uuid)
            if running is None:
                raise NotStartedError(qube.name)
            await running.machine.kill()
            await self._ended(qube, running)

    async def pause(self, qube: Qube) -> None:
        """Stop a qube's processors.

        Raises:
            NotRunningError: it does not run.
        """
        async with self._world.lock(qube.uuid):
            if qube.power is not PowerState.RUNNING:
                raise NotRunningError(qube.name)
            self._world.events.tell(qube, "domain-pre-paused")
            await self._running(qube).pause()
            self._enter(qube, PowerState.PAUSED)
            self._world.events.tell(qube, "domain-paused")

    async def unpause(self, qube: Qube) -> None:
        """Let a qube go on, with the right time.

        Raises:
            NotPausedError: it is not paused.
        """
        async with self._world.lock(qube.uuid):
            if qube.power is not PowerState.PAUSED:
                raise NotPausedError(qube.name)
            self._world.events.tell(qube, "domain-pre-unpaused")
            await self._running(qube).unpause()
            self._enter(qube, PowerState.RUNNING)
            self._world.events.tell(qube, "domain-unpaused")

    async def until_halted(self, qube: Qube) -> None:
        """Wait until a qube is halted."""
        async with self._changed:
            await self._changed.wait_for(lambda: qube.halted)

    async def take_over(self, qube: Qube, run: Run) -> None:
        """Look after a qube that an earlier daemon started, or clear up what is left of it."""
        async with self._world.lock(qube.uuid):
            try:
                running = await take_over(
                    qube.uuid,
                    qube.name,
                    xid=run.xid,
                    started=run.started,
                    engine=self._world.engine,
                    run=self._world.run,
                )
            except ReportableError as error:
                log.warning("qube not taken over", extra={"qube": qube.name, "why": str(error)})
                await self._kill_stray(qube)
                running = None
            if running is None:
                await self._clear_up(qube)
                return
            self._adopted(qube, running)

    async def running(self, qube: Qube) -> RunningQube:
        """A running qube, once what happens to it now has come to its end.

        Raises:
            NotRunningError: it does not run, or is paused.
        """
        async with self._world.lock(qube.uuid):
            if qube.power is PowerState.PAUSED:
                raise NotRunningError(qube.name, "is paused")
            return self._running(qube)

    async def end_all(self, *, kill: bool) -> None:
        """End every qube: by asking it first, unless told to kill, and within its time."""
        ending = [
            self._end(qube, kill=kill)
            for uuid in tuple(self._world.running)
            if (qube := self._world.system.find(uuid)) is not None
        ]
        await asyncio.gather(*ending)

    async def _end(self, qube: Qube, *, kill: bool) -> None:
        if not kill:
            try:
                await self.shutdown(qube, force=True, wait=True)
            except NotStartedError:
                return
            except ReportableError as error:
                log.warning("qube is killed", extra={"qube": qube.name, "why": str(error)})
            else:
                return
        with suppress(NotStartedError):
            await self.kill(qube)

    async def close(self) -> None:
        """Stop looking after qubes; they go on."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for running in self._world.running.values():
            await running.let_go()

    async def _start(self, qube: Qube) -> None:
        world, guid = self._world, uuid4()
        if reason := qube.features.get("prohibit-start"):
            raise QubeStateError(f"Qube {qube.name} may not be started: {reason}")
        begun = time.monotonic()
        await world.agent.ready()
        run = Run(qube.uuid, world.next_xid(), time.time())
        memory = value_of(world.system, qube, "memory")
        world.events.tell(qube, "domain-pre-start", start_guid=guid, mem_required=memory)
        self._enter(qube, PowerState.TRANSIENT)
        spawned = False

        def launched() -> None:
            nonlocal spawned
            spawned = True
            qube.xid, qube.started = run.xid, run.started
            self._tell_state_resets(qube)
            world.events.tell(qube, "domain-spawn", start_guid=guid)
            world.events.tell(qube, "domain-qdb-create")
            world.events.tell(qube, "domain-pre-unpaused")
            world.events.tell(qube, "domain-unpaused")

        try:
            golden = await self._snapshots.for_start(basis_of(world, qube))
            order = order_of(world, qube, golden)
            await world.store.write(put_run(run))
            world.events.tell(qube, "domain-pre-spawn", start_guid=guid)
            running = await bring_up(
                order, run.xid, world.engine, world.storage, world.run, on_launched=launched
            )
        except BaseException as error:
            reason = str(error) or type(error).__name__
            world.events.tell(qube, "domain-start-failed", reason=reason)
            await self._clear_up(qube, spawned=spawned)
            raise
        self._adopted(qube, running)
        world.events.tell(qube, "domain-start", start_guid=guid)
        milliseconds = round((time.monotonic() - begun) * 1000)
        log.info("qube started", extra={"qube": qube.name, "start_ms": milliseconds})

    def _adopted(self, qube: Qube, running: RunningQube) -> None:
        self._world.running[qube.uuid] = running
        qube.xid, qube.started = running.xid, running.started
        self._enter(qube, PowerState.PAUSED if running.paused else PowerState.RUNNING)
        running.machine.on_gone(lambda: self._spawn(self._gone(qube, running)))

    async def _gone(self, qube: Qube, running: RunningQube) -> None:
        """A machine ended, whether it was asked to or not."""
        async with self._world.lock(qube.uuid):
            if self._world.running.get(qube.uuid) is running:
                await self._ended(qube, running)

    async def _ended(self, qube: Qube, running: RunningQube) -> None:
        del self._world.running[qube.uuid]
        await running.let_go()
        await self._clear_up(qube)

    async def _clear_up(self, qube: Qube, *, spawned: bool = True) -> None:
        """Keep what a qube's machine wrote, remove the rest, and let the qube be halted."""
        world = self._world
        name = machine_name(qube.uuid)
        await world.engine.release(name)
        await asyncio.to_thread(shutil.rmtree, run_directory(world.run, qube.uuid), True)
        if qube.properties.get("auto_cleanup"):
            await self._vanish(qube, spawned=spawned)
            return
        committed = {
            name: await world.storage.commit(volume) for name, volume in qube.volumes.items()
        }
        advanced = committed != qube.volumes
        qube.volumes = committed
        await world.store.write(*((put_qube(qube),) if advanced else ()), drop_run(qube.uuid))
        if advanced:
            for volume in committed.values():
                await world.storage.prune(volume)
        self._halted(qube, spawned=spawned)
        if advanced and qube.klass is QubeClass.TEMPLATE:
            self._snapshots.refresh(qube)

    async def _vanish(self, qube: Qube, *, spawned: bool) -> None:
        """A disposable ends: so does its entry."""
        world = self._world
        await world.store.write(drop_qube(qube.uuid), drop_run(qube.uuid))
        self._halted(qube, spawned=spawned)
        world.events.tell(None, "domain-pre-delete", vm=qube.name)
        world.system.qubes.pop(qube.uuid, None)
        world.events.tell(None, "domain-delete", vm=qube.name)
        await world.storage.remove(qube.uuid)
        world.forget_lock(qube.uuid)

    def _halted(self, qube: Qube, *, spawned: bool) -> None:
        if spawned:
            self._world.events.tell(qube, "domain-stopped")
        qube.xid, qube.started = -1, None
        self._enter(qube, PowerState.HALTED)
        if spawned:
            self._tell_state_resets(qube)
            self._world.events.tell(qube, "domain-shutdown")

    async def _kill_stray(self, qube: Qube) -> None:
        """End a machine that nobody can look after."""
        place = run_directory(self._world.run, qube.uuid)
        try:
            machine = await self._world.engine.adopt(machine_name(qube.uuid), place)
            if machine is not None:
                await machine.kill()
        except ReportableError:
            await self._world.engine.release(machine_name(qube.uuid))

    def _enter(self, qube: Qube, state: PowerState) -> None:
        qube.power = state
        self._spawn(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _tell_state_resets(self, qube: Qube) -> None:
        for name in _FOLLOW_STATE:
            self._world.events.tell(qube, f"property-reset:{name}", name=name)

    def _running(self, qube: Qube) -> RunningQube:
        running = self._world.running.get(qube.uuid)
        if running is None:
            raise NotRunningError(qube.name)
        return running

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a qube's end was not seen through", exc_info=error)
