"""Qubes up and down: started, shut down, killed, paused; each change under its qube's lock."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any
from uuid import UUID

from insula.daemon.lifecycle.endings import Endings, tell_state_resets
from insula.daemon.lifecycle.furnishing import furnish
from insula.daemon.lifecycle.planning import basis_of, order_of
from insula.daemon.lifecycle.running import (
    RunningQube,
    bring_up,
    machine_name,
    run_directory,
    take_over,
)
from insula.daemon.lifecycle.snapshots import Snapshots
from insula.daemon.lifecycle.vetoes import check_in_place, check_memory, check_shutdown, check_start
from insula.daemon.lifecycle.waiting import through
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import (
    NotHaltedError,
    NotPausedError,
    NotRunningError,
    NotStartedError,
    QubeNotFoundError,
    QubeStateError,
    RefusedError,
    ShutdownTimeoutError,
)
from insula.daemon.model.properties.network import netvm
from insula.daemon.model.properties.qubes import value_of
from insula.daemon.model.qube import PowerState, Qube, QubeClass
from insula.daemon.store.records import Run, put_run
from insula.protocol.errors import ReportableError

CLOSE_TIMEOUT = 10.0  # seconds that ends of qubes have to be seen through when the daemon ends

log = logging.getLogger(__name__)


class Power:
    """The lifecycle of every qube; each has its lock, so that nothing happens to one twice."""

    def __init__(self, world: World, snapshots: Snapshots) -> None:
        self._world = world
        self._snapshots = snapshots
        self._endings = Endings(world, snapshots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[UUID, asyncio.Task[None]] = {}
        self._halting: dict[UUID, asyncio.Task[None]] = {}
        self._network_awaited: dict[UUID, UUID] = {}
        self._over: dict[UUID, asyncio.Event] = {}
        self._going_down = False
        self._closed = False
        # What a qube has to pass before it is started.
        self.start_checks: list[Callable[[Qube], None]] = [
            check_start,
            partial(check_in_place, world.system),
        ]
        # Who wants to know of each qube that runs, and its machine.
        self.watchers: list[Callable[[Qube, RunningQube], None]] = []
        # What is done to a qube that is up, before it is said to be.
        self.start_steps: list[Callable[[Qube], Awaitable[None]]] = []
        # What is done to a qube that went on, before whoever asked for it is answered.
        self.unpause_steps: list[Callable[[Qube], Awaitable[None]]] = []

    @property
    def going_down(self) -> bool:
        """Whether nothing is started any more."""
        return self._going_down

    async def start(self, qube: Qube) -> None:
        """Start a qube; nothing happens when it is not halted. Who asks meanwhile shares the end.

        Raises:
            ReportableError: it could not be started; nothing of it is left.
        """
        if not qube.klass.is_machine:
            raise NotHaltedError(qube.name, "is no virtual machine of ours and always runs")
        if self._going_down:
            raise RefusedError("The instance is going down", "Start it again with: insula up")
        task = self._starting.get(qube.uuid)
        if task is None:
            task = self._spawn(self._start_alone(qube))
            self._starting[qube.uuid] = task
            task.add_done_callback(lambda _done: self._starting.pop(qube.uuid, None))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # Before its first step.
                raise _killed(qube) from None
            raise

    async def shutdown(self, qube: Qube, *, force: bool = False, wait: bool = False) -> None:
        """Ask a qube to end itself; wait: until it has, or shutdown_timeout is over.

        Raises:
            ReportableError: it is halted, paused (force kills it then), others need it (unless
                force), or it did not end in time.
        """
        if (starting := self._starting.get(qube.uuid)) is not None:
            await asyncio.wait((starting,))
        async with self._world.lock(qube.uuid):  # What happens to it now comes to its end first.
            if qube.halted:
                raise NotStartedError(qube.name)
            running = self._running(qube)
        self._world.events.tell(qube, "domain-pre-shutdown", force=force)
        try:
            await self._shut_down(qube, running, force=force, wait=wait)
        except ReportableError as error:
            self._world.events.tell(qube, "domain-shutdown-failed", reason=error)
            raise

    async def _shut_down(
        self, qube: Qube, running: RunningQube, *, force: bool, wait: bool
    ) -> None:
        if not force:
            check_shutdown(self._world.system, qube)
        if qube.standing_still:
            if not force:
                raise NotRunningError(qube.name, "is paused")
            await self.kill(qube)
            return
        try:
            running.link.shutdown()
        except ReportableError as error:
            error.hint = error.hint or f"End it now with: qvm-kill {qube.name}"
            raise
        qube.power = PowerState.HALTING
        timeout = float(str(value_of(self._world.system, qube, "shutdown_timeout")))
        over = self._over[qube.uuid]
        halting = self._halting.get(qube.uuid)
        if halting is None:
            halting = self._spawn(self._watch_halting(qube, over, timeout))
            self._halting[qube.uuid] = halting
            halting.add_done_callback(lambda _done: self._halting.pop(qube.uuid, None))
        if wait:
            await asyncio.wait((halting,))
            if not over.is_set():
                raise ShutdownTimeoutError(qube.name, timeout)

    async def _watch_halting(self, qube: Qube, over: asyncio.Event, timeout: float) -> None:
        """A qube that does not end when asked to goes on, and is so shown."""
        try:
            async with asyncio.timeout(timeout):
                await over.wait()
        except TimeoutError:
            if qube.power is PowerState.HALTING and not over.is_set():
                qube.power = PowerState.RUNNING

    async def kill(self, qube: Qube) -> None:
        """End a qube now, be it while it starts; returns when nothing of it is left.

        Raises:
            ReportableError: it is not started, or cannot be ended.
        """
        if not qube.klass.is_machine:
            raise QubeStateError(f"Qube {qube.name} is no virtual machine of ours to be ended")
        if (starting := self._starting.get(qube.uuid)) is not None:
            starting.cancel()
            await asyncio.wait((starting,))
        async with self._world.lock(qube.uuid):
            running = self._world.running.get(qube.uuid)
            if running is not None:
                await running.machine.kill()
                await self._ended(qube, running)
            elif qube.halted:
                if starting is None:
                    raise NotStartedError(qube.name)
                await self._endings.clear_up_unused(qube)
            else:  # A machine that an earlier daemon left could not be taken over.
                await self._endings.clear_up(qube)

    async def pause(self, qube: Qube, state: PowerState = PowerState.PAUSED) -> None:
        """Stop a qube's processors. state: how it is called while they stand still.

        Raises:
            NotRunningError: it does not run.
        """
        async with self._world.lock(qube.uuid):
            if qube.power is not PowerState.RUNNING:
                raise NotRunningError(qube.name)
            running = self._running(qube)
            self._world.events.tell(qube, "domain-pre-paused")
            run = Run(qube.uuid, running.xid, running.started, paused=True)
            await self._world.store.write(put_run(run))
            await running.pause()
            qube.power = state
            self._world.events.tell(qube, "domain-paused")

    async def unpause(self, qube: Qube, state: PowerState = PowerState.PAUSED) -> None:
        """Let a qube go on, with the right time. state: the one it has to be in.

        Raises:
            NotPausedError: it is not in it.
        """
        async with self._world.lock(qube.uuid):
            if qube.power is not state:
                raise NotPausedError(qube.name)
            running = self._running(qube)
            self._world.events.tell(qube, "domain-pre-unpaused")
            try:
                await running.unpause()
            finally:
                if not running.paused:
                    qube.power = PowerState.RUNNING
                    self._world.events.tell(qube, "domain-unpaused")
            running.calls.on_idle()
        for step in self.unpause_steps:
            await step(qube)

    async def ready(self, qube: Qube, *, autostart: bool) -> RunningQube:
        """A qube that takes calls; autostart: it is started where it is not up, or on its way down.

        Raises:
            ReportableError: it does not run, is paused, or could not be started.
        """
        if qube.klass is QubeClass.ADMIN:
            raise QubeStateError(f"Qube {qube.name} is the admin domain: run it here, without us")
        if qube.klass is QubeClass.REMOTE:
            raise QubeStateError(f"Qube {qube.name} is on another system")
        if qube.power is PowerState.HALTING:
            if not autostart:
                raise NotRunningError(qube.name, "is shutting down")
            if (halting := self._halting.get(qube.uuid)) is not None:
                await asyncio.wait((halting,))
        if qube.halted:
            if not autostart:
                raise NotRunningError(qube.name)
            await self.start(qube)
        async with self._world.lock(qube.uuid):
            if qube.standing_still:
                raise NotRunningError(qube.name, "is paused")
            return self._running(qube)

    async def take_over(self, qube: Qube, run: Run) -> None:
        """Look after a qube that an earlier daemon started, or clear up what is left of it."""
        async with self._world.lock(qube.uuid):
            try:
                running = await take_over(
                    qube.uuid,
                    qube.name,
                    xid=run.xid,
                    started=run.started,
                    may_be_paused=run.paused,
                    engine=self._world.engine,
                    run=self._world.run,
                )
            except ReportableError as error:
                log.warning("qube not taken over", extra={"qube": qube.name, "why": str(error)})
                await self._kill_stray(qube)
                running = None
            if running is None:
                await self._endings.clear_up(qube)
                return
            self._adopted(qube, running)
        if qube.fleeting:
            running.calls.on_idle = lambda: self._end_fleeting(qube, running)
            self._end_fleeting(qube, running)

    def _end_fleeting(self, qube: Qube, running: RunningQube) -> None:
        """End a disposable whose caller an earlier daemon knew, once its call is over."""
        if running.calls.idle and not running.paused and not self._closed:
            self._spawn(self._end(qube, kill=True))

    async def end_all(self, *, kill: bool) -> None:
        """End every qube: by asking it first, unless told to kill, and within its time.

        No qube is started any more, unless one of them could not be ended.

        Raises:
            ReportableError: some qube runs on.
        """
        self._going_down = True
        if starting := tuple(self._starting.values()):
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)
        qubes = [self._world.system.find(uuid) for uuid in tuple(self._world.running)]
        ends = await asyncio.gather(
            *(self._end(qube, kill=kill) for qube in qubes if qube is not None),
            return_exceptions=True,
        )
        for end in ends:
            if isinstance(end, BaseException):
                self._going_down = False
                raise end

    async def close(self) -> None:
        """Stop looking after qubes; they go on. Those that are being started are ended."""
        self._going_down = True
        for task in (*self._starting.values(), *self._halting.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=CLOSE_TIMEOUT)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._closed = True
        running = [one.let_go() for one in self._world.running.values()]
        await asyncio.gather(*running, return_exceptions=True)

    async def _end(self, qube: Qube, *, kill: bool) -> None:
        try:
            if not kill:
                await self.shutdown(qube, force=True, wait=True)
                return
        except NotStartedError:
            return
        except ReportableError as error:
            log.warning("qube is killed", extra={"qube": qube.name, "why": str(error)})
        try:
            await self.kill(qube)
        except NotStartedError:
            return

    async def _start_alone(self, qube: Qube) -> None:
        try:
            async with self._world.lock(qube.uuid):
                if qube.uuid not in self._world.system.qubes:
                    raise QubeNotFoundError(qube.name)
                if qube.halted:
                    await self._start(qube)
        except asyncio.CancelledError:
            raise _killed(qube) from None

    async def _start(self, qube: Qube) -> None:
        world, begun, spawned = self._world, time.monotonic(), False
        if reason := qube.features.get("prohibit-start"):
            await self._endings.clear_up_unused(qube)
            raise RefusedError(
                f"Qube {qube.name} may not be started: {reason}",
                f"Allow it with: qvm-features --unset {qube.name} prohibit-start",
            )
        run = Run(qube.uuid, world.next_xid(), time.time())
        memory = value_of(world.system, qube, "memory")
        # start_guid: whether who shows windows is to show this qube's.
        world.events.tell(qube, "domain-pre-start", start_guid=True, mem_required=memory)
        qube.power = PowerState.TRANSIENT

        def launched() -> None:
            nonlocal spawned
            spawned = True
            qube.xid, qube.started = run.xid, run.started
            tell_state_resets(world, qube)
            world.events.tell(qube, "domain-spawn", start_guid=True)
            for name in ("domain-qdb-create", "domain-pre-unpaused", "domain-unpaused"):
                world.events.tell(qube, name)

        try:
            for check in self.start_checks:
                check(qube)
            world.events.tell(qube, "domain-verify-files")
            await self._start_network(qube)
            check_memory(world.system, qube)
            await world.agent.ready()
            golden = await self._snapshots.for_start(basis_of(world, qube))
            await furnish(world, qube, golden)
            order = order_of(world, qube, golden)
            await world.store.write(put_run(run))
            world.events.tell(qube, "domain-pre-spawn", start_guid=True)
            running = await bring_up(
                order, run.xid, world.engine, world.storage, world.run, on_launched=launched
            )
        except BaseException as error:
            self._tell_failed(qube, error)
            await through(self._spawn(self._endings.clear_up(qube, spawned=spawned)))
            raise
        running.started = run.started
        self._adopted(qube, running)
        try:
            for step in self.start_steps:
                await step(qube)
        except BaseException as error:
            await through(self._spawn(self._undo_start(qube, running, error)))
            raise
        world.events.tell(qube, "domain-start", start_guid=True)
        milliseconds = round((time.monotonic() - begun) * 1000)
        log.info("qube started", extra={"qube": qube.name, "start_ms": milliseconds})

    def _tell_failed(self, qube: Qube, error: BaseException) -> None:
        killed = isinstance(error, asyncio.CancelledError)
        reason = str(_killed(qube) if killed else error) or type(error).__name__
        log.warning("qube not started", extra={"qube": qube.name, "why": reason})
        if isinstance(error, ReportableError) and error.hint is None:
            error.hint = f"What it was doing is in {self._world.storage.home}/log/insulad.log"
        self._world.events.tell(qube, "domain-start-failed", reason=reason)

    async def _undo_start(self, qube: Qube, running: RunningQube, error: BaseException) -> None:
        """End a qube that is up and yet not started; its starter holds its lock."""
        self._tell_failed(qube, error)
        await running.machine.kill()
        await self._ended(qube, running)

    async def _start_network(self, qube: Qube) -> None:
        """Start what a qube gets its network from; it may be changed to wait for us meanwhile."""
        provider = netvm(self._world.system, qube)
        above = provider.uuid if provider is not None else None
        while above is not None:
            if above == qube.uuid:
                return
            above = self._network_awaited.get(above)
        if provider is None:
            return
        self._network_awaited[qube.uuid] = provider.uuid
        try:
            await self.start(provider)
        finally:
            del self._network_awaited[qube.uuid]

    def _adopted(self, qube: Qube, running: RunningQube) -> None:
        self._world.running[qube.uuid] = running
        self._over[qube.uuid] = asyncio.Event()
        qube.xid, qube.started = running.xid, running.started
        qube.power = PowerState.PAUSED if running.paused else PowerState.RUNNING
        running.machine.on_gone(lambda: self._see_through(qube, running))
        for watch in self.watchers:
            watch(qube, running)

    def _see_through(self, qube: Qube, running: RunningQube) -> None:
        if not self._closed:
            self._spawn(self._gone(qube, running))

    async def _gone(self, qube: Qube, running: RunningQube) -> None:
        """A machine ended, whether it was asked to or not."""
        async with self._world.lock(qube.uuid):
            if self._world.running.get(qube.uuid) is running:
                await self._ended(qube, running)

    async def _ended(self, qube: Qube, running: RunningQube) -> None:
        del self._world.running[qube.uuid]
        running.calls.gone()
        try:
            await running.let_go()
        finally:
            await self._endings.clear_up(qube)
            self._over.pop(qube.uuid).set()

    async def _kill_stray(self, qube: Qube) -> None:
        """End a machine that nobody can look after."""
        place = run_directory(self._world.run, qube.uuid)
        try:
            machine = await self._world.engine.adopt(machine_name(qube.uuid), place)
            if machine is not None:
                await machine.kill()
        except ReportableError:
            await self._world.engine.release(machine_name(qube.uuid))

    def _running(self, qube: Qube) -> RunningQube:
        running = self._world.running.get(qube.uuid)
        if running is None:
            raise NotRunningError(qube.name)
        return running

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, ReportableError):
            log.error("a step of a qube's life failed", exc_info=error)


def _killed(qube: Qube) -> QubeStateError:
    return QubeStateError(f"Qube {qube.name} was killed while it started")
