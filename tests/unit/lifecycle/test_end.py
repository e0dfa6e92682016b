"""Ends of qubes: asked for, forced, unexpected; their events, and what is kept and removed."""

import asyncio
import os
import signal
import sqlite3

import pytest

from insula.daemon.lifecycle.running import run_directory
from insula.daemon.model.errors import (
    NotHaltedError,
    NotPausedError,
    NotRunningError,
    NotStartedError,
    QubeInUseError,
    QubeStateError,
    ShutdownTimeoutError,
)
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.store import store
from insula.protocol.admin import Event
from insula.protocol.errors import ReportableError
from tests.serving import Instance

from .conftest import until

RESETS = ["property-reset:xid", "property-reset:stubdom_xid", "property-reset:start_time"]
GONE = ["domain-stopped", *RESETS, "domain-shutdown"]


@pytest.fixture
async def running(instance: Instance, work: Qube) -> Qube:
    await instance.power.start(work)
    instance.told.clear()
    return work


async def test_a_shutdown_tells_its_events_in_order(instance: Instance, running: Qube) -> None:
    await instance.power.shutdown(running, wait=True)
    assert instance.names("work") == ["domain-pre-shutdown", *GONE]
    assert instance.told[0].fields == {"force": "False"}
    _nothing_is_left(instance, running)


async def test_a_shutdown_need_not_be_waited_for(instance: Instance, running: Qube) -> None:
    await instance.power.shutdown(running)
    assert running.power is PowerState.HALTING
    await until(lambda: running.halted)
    assert instance.names("work") == ["domain-pre-shutdown", *GONE]


async def test_halted_qubes_can_be_neither_ended_nor_paused(instance: Instance, work: Qube) -> None:
    for action, error in (
        (instance.power.shutdown, NotStartedError),
        (instance.power.kill, NotStartedError),
        (instance.power.pause, NotRunningError),
        (instance.power.unpause, NotPausedError),
    ):
        with pytest.raises(error, match="work") as refusal:
            await action(work)
        assert type(refusal.value) is error
    assert instance.told == []


async def test_the_admin_domain_is_left_alone(instance: Instance) -> None:
    with pytest.raises(NotHaltedError):
        await instance.power.start(instance.system.dom0)
    with pytest.raises(QubeStateError):
        await instance.power.kill(instance.system.dom0)


async def test_a_kill_returns_when_nothing_is_left(instance: Instance, running: Qube) -> None:
    await instance.power.kill(running)
    assert instance.names("work") == GONE
    _nothing_is_left(instance, running)


async def test_a_machine_that_ends_by_itself_is_told_of(instance: Instance, running: Qube) -> None:
    os.kill(instance.world.running[running.uuid].machine.pid, signal.SIGKILL)
    await until(lambda: running.halted)
    assert instance.names("work") == GONE
    await until(lambda: instance.world.store.load().runs == [])
    await instance.power.start(running)


async def test_what_a_machine_wrote_is_kept(instance: Instance, running: Qube) -> None:
    await instance.power.kill(running)
    private = running.volumes["private"]
    assert private.layers == ("1.qcow2",)
    (stored,) = [qube for qube in instance.world.store.load().qubes if qube.uuid == running.uuid]
    assert stored.volumes["private"] == private


async def test_a_pause_and_its_end_are_told_of(instance: Instance, running: Qube) -> None:
    await instance.power.pause(running)
    assert _state(running) is PowerState.PAUSED
    with pytest.raises(NotRunningError, match="paused"):
        await instance.power.ready(running, autostart=True)
    with pytest.raises(NotRunningError):
        await instance.power.pause(running)
    await instance.power.unpause(running)
    assert _state(running) is PowerState.RUNNING
    assert instance.names("work") == [
        *("domain-pre-paused", "domain-paused", "domain-pre-unpaused", "domain-unpaused")
    ]


async def test_a_paused_qube_is_shut_down_by_force_alone(instance: Instance, running: Qube) -> None:
    await instance.power.pause(running)
    instance.told.clear()
    with pytest.raises(NotRunningError, match="paused"):
        await instance.power.shutdown(running)
    assert instance.names("work") == ["domain-pre-shutdown", "domain-shutdown-failed"]
    await instance.power.shutdown(running, force=True)
    assert running.halted


async def test_a_qube_that_others_need_is_shut_down_by_force_alone(
    instance: Instance, work: Qube
) -> None:
    router = await instance.qube("router", provides_network=True)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"router")
    await instance.power.start(work)
    with pytest.raises(QubeInUseError, match="work") as refusal:
        await instance.power.shutdown(router)
    assert "--force" in (refusal.value.hint or "")
    await instance.power.shutdown(router, force=True, wait=True)
    await instance.power.start(router)
    await instance.power.shutdown(work, wait=True)
    await instance.power.shutdown(router, wait=True)


@pytest.mark.parametrize(
    ("name", "error"), [("guivm", QubeStateError), ("audiovm", QubeInUseError)]
)
async def test_a_qube_that_shows_or_plays_for_others_is_needed(
    instance: Instance, running: Qube, name: str, error: type[QubeStateError]
) -> None:
    other = await instance.qube("other")
    await instance.power.start(other)
    running.properties[name] = other.uuid
    with pytest.raises(error, match="work") as refusal:
        await instance.power.shutdown(other)
    assert type(refusal.value) is error


async def test_a_qube_that_does_not_end_in_time_is_running_again(
    instance: Instance, running: Qube
) -> None:
    await _make_deaf(instance, running)
    with pytest.raises(ShutdownTimeoutError, match="1 s") as refusal:
        await instance.power.shutdown(running, wait=True)
    assert "qvm-kill work" in (refusal.value.hint or "")
    assert instance.names("work") == ["domain-pre-shutdown", "domain-shutdown-failed"]
    assert running.power is PowerState.RUNNING


async def test_everybody_who_waits_for_an_end_sees_it(instance: Instance, running: Qube) -> None:
    await asyncio.gather(*(instance.power.shutdown(running, wait=True) for _ in range(3)))
    assert instance.names("work").count("domain-shutdown") == 1


async def test_a_start_during_a_shutdown_changes_nothing(instance: Instance, running: Qube) -> None:
    """It is not halted, so that is no failure, as in Qubes."""
    await instance.power.shutdown(running)
    await instance.power.start(running)
    await until(lambda: running.halted)


async def test_a_call_during_a_shutdown_starts_the_qube_anew(
    instance: Instance, running: Qube
) -> None:
    before = running.xid
    await instance.power.shutdown(running)
    with pytest.raises(NotRunningError, match="shutting down"):
        await instance.power.ready(running, autostart=False)
    ready = await instance.power.ready(running, autostart=True)
    assert ready.xid != before
    assert running.power is PowerState.RUNNING


async def test_a_shutdown_during_a_start_follows_it(instance: Instance, work: Qube) -> None:
    starting = asyncio.create_task(instance.power.start(work))
    await until(lambda: work.power is PowerState.TRANSIENT)
    await instance.power.shutdown(work, wait=True)
    await starting
    assert work.halted


async def test_a_shutdown_waits_for_what_happens_to_the_qube(
    instance: Instance, running: Qube
) -> None:
    """As when a new daemon has not taken it over yet."""
    async with instance.world.lock(running.uuid):
        ending = asyncio.create_task(instance.power.shutdown(running, wait=True))
        await asyncio.sleep(0.01)
        assert instance.names("work") == []
    await ending
    assert running.halted


async def test_a_pause_during_a_start_follows_it(instance: Instance, work: Qube) -> None:
    starting = asyncio.create_task(instance.power.start(work))
    await until(lambda: work.power is PowerState.TRANSIENT)
    await instance.power.pause(work)
    await starting
    assert work.power is PowerState.PAUSED


@pytest.mark.parametrize("at", ["asked", "domain-pre-start", "domain-pre-spawn", "domain-spawn"])
async def test_a_kill_aborts_a_start_wherever_it_is(
    instance: Instance, work: Qube, at: str
) -> None:
    killing: list[asyncio.Task[None]] = []

    def kill(event: Event) -> None:
        if event.name == at:
            killing.append(asyncio.create_task(instance.power.kill(work)))

    instance.world.events.add(kill)
    starting = asyncio.create_task(instance.power.start(work))
    await asyncio.sleep(0)  # Now it has a task, which has not taken its first step.
    if at == "asked":
        await instance.power.kill(work)
    else:
        await until(lambda: bool(killing))
        await killing[0]
    instance.world.events.remove(kill)
    with pytest.raises(QubeStateError, match="killed while it started"):
        await starting
    _nothing_is_left(instance, work)
    ends = [name for name in instance.names("work") if name in ("domain-start-failed", *GONE)]
    expected = [] if at == "asked" else ["domain-start-failed"]
    spawned = "domain-spawn" in instance.names("work")
    assert [name for name in ends if name not in RESETS] == [
        *expected,
        *(("domain-stopped", "domain-shutdown") if spawned else ()),
    ]
    await instance.power.start(work)


async def test_a_disposable_killed_before_its_start_began_is_gone(instance: Instance) -> None:
    mould = await instance.disposables()
    made = await instance.administration.create_disposable(mould, instance.system.dom0)
    starting = asyncio.create_task(instance.power.start(made))
    await asyncio.sleep(0)
    await instance.power.kill(made)
    with pytest.raises(QubeStateError, match="killed"):
        await starting
    assert not instance.system.has_name(made.name)


async def test_a_removal_during_a_start_is_refused_at_once(instance: Instance, work: Qube) -> None:
    starting = asyncio.create_task(instance.power.start(work))
    await until(lambda: work.power is PowerState.TRANSIENT)
    with pytest.raises(NotHaltedError):
        await instance.administration.remove(work)
    assert not starting.done()
    await starting


async def test_an_end_that_the_store_cannot_hold_loses_nothing(
    instance: Instance, running: Qube, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "_execute", _full)
        await instance.power.kill(running)
    _nothing_is_left(instance, running, run=True)
    private = running.volumes["private"]
    assert private.layers == ()
    work = instance.home / "volumes" / str(running.uuid) / "private" / private.work
    kept = work.stat().st_ino
    await instance.power.start(running)
    await instance.power.kill(running)
    assert running.volumes["private"].layers == (private.work,)
    assert work.stat().st_ino == kept


async def test_a_disposable_that_the_store_cannot_forget_stays_and_can_be_removed(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mould = await instance.disposables()
    made = await instance.administration.create_disposable(mould, instance.system.dom0)
    await instance.power.start(made)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_execute", _full)
        await instance.power.kill(made)
    assert made.halted
    assert instance.system.named(made.name) is made
    await instance.administration.remove(made)
    assert made.uuid not in {one.uuid for one in instance.world.store.load().qubes}


async def test_a_disposable_vanishes_with_its_machine(instance: Instance) -> None:
    mould = await instance.disposables()
    made = await instance.administration.create_disposable(mould, instance.system.dom0)
    await instance.power.start(made)
    instance.told.clear()
    os.kill(instance.world.running[made.uuid].machine.pid, signal.SIGKILL)
    await until(lambda: "domain-remove-from-disk" in instance.names(made.name))
    assert instance.names() == [
        *GONE,
        *("domain-pre-delete", "domain-delete", "domain-remove-from-disk"),
    ]
    assert not instance.system.has_name(made.name)
    assert not (instance.home / "volumes" / str(made.uuid)).exists()
    assert instance.world.store.load().runs == []


async def test_a_named_disposable_stays(instance: Instance) -> None:
    await instance.disposables()
    await instance.ok("admin.vm.Create.DispVM", "dom0", "mould", b"name=named label=red")
    named = instance.system.named("named")
    await instance.power.start(named)
    await instance.power.kill(named)
    assert instance.system.named("named") is named


async def test_all_end_when_the_instance_goes_down(instance: Instance, running: Qube) -> None:
    other = await instance.qube("other")
    third = await instance.qube("third")
    await instance.power.start(other)
    await instance.power.pause(other)
    starting = asyncio.create_task(instance.power.start(third))
    await until(lambda: third.power is PowerState.TRANSIENT)
    await instance.power.end_all(kill=False)
    assert running.halted
    assert other.halted
    assert third.halted
    with pytest.raises(ReportableError, match="killed"):
        await starting
    with pytest.raises(ReportableError, match="going down"):
        await instance.power.start(other)
    assert instance.processes() == set()


async def test_a_qube_that_cannot_be_ended_keeps_the_instance_up(
    instance: Instance, running: Qube, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await instance.qube("other")

    async def stays() -> None:
        raise ReportableError("it stays")

    with monkeypatch.context() as patch:
        patch.setattr(instance.world.running[running.uuid].machine, "kill", stays)
        with pytest.raises(ReportableError, match="it stays"):
            await instance.power.end_all(kill=True)
    assert running.power is PowerState.RUNNING
    await instance.power.start(other)


async def test_locks_go_with_their_qubes(instance: Instance) -> None:
    mould = await instance.disposables()
    for _ in range(3):
        made = await instance.administration.create_disposable(mould, instance.system.dom0)
        await instance.power.start(made)
        await instance.power.kill(made)
    await until(lambda: not dict(instance.world._locks))


def _state(qube: Qube) -> PowerState:
    return qube.power


def _full(_connection: object, _changes: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def _make_deaf(instance: Instance, qube: Qube) -> None:
    """Stop its agent's process, but not as a pause does."""
    await instance.ok("admin.vm.property.Set", qube.name, "shutdown_timeout", b"1")
    os.kill(instance.world.running[qube.uuid].machine.pid, signal.SIGSTOP)
    instance.told.clear()


def _nothing_is_left(instance: Instance, qube: Qube, *, run: bool = False) -> None:
    assert qube.halted
    assert (qube.xid, qube.started) == (-1, None)
    assert instance.processes() == set()
    assert qube.uuid not in instance.world.running
    assert not run_directory(instance.run, qube.uuid).exists()
    assert bool(instance.world.store.load().runs) is run
