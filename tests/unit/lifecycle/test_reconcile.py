"""A daemon that comes after another: what runs, what was left, and what the store says, agree."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from insula.daemon.engine.interface import MachineSpec
from insula.daemon.engine.memory.engine import MemoryEngine
from insula.daemon.lifecycle import reconcile
from insula.daemon.lifecycle.planning import order_of
from insula.daemon.lifecycle.running import machine_name, run_directory
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.store.records import Run, put_run
from insula.protocol.qrexec import MessageType
from tests.serving import Instance, end_machines, memory_engine, open_instance, user

from .conftest import until


@dataclass
class Daemons:
    """One daemon after another, of one instance."""

    home: Path
    run: Path
    engine: MemoryEngine = field(default_factory=memory_engine)
    undo: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> Instance:
        """A daemon that has taken over, as main does."""
        instance = await open_instance(self.undo, self.home, self.run, self.engine)
        unused = reconcile.expect(instance.world, instance.runs)
        await reconcile.take_all_over(instance.world, instance.power, instance.runs)
        await instance.networking.begin()
        await reconcile.remove_all(instance.administration, unused)
        return instance

    async def restart(self) -> Instance:
        """End the daemon, as a signal does, and start another."""
        await self.undo.aclose()
        return await self.start()


@pytest_asyncio.fixture
async def daemons(tmp_path: Path) -> AsyncIterator[Daemons]:
    with tempfile.TemporaryDirectory(prefix="insula-") as run:
        made = Daemons(tmp_path / "home", Path(run))
        yield made
        await made.undo.aclose()
        await end_machines(made.engine)


async def _running(daemons: Daemons) -> Instance:
    instance = await daemons.start()
    await instance.template()
    await instance.power.start(await instance.qube("work"))
    return instance


def _work(instance: Instance) -> Qube:
    return instance.system.named("work")


async def test_a_running_qube_is_taken_over(daemons: Daemons) -> None:
    before = _work(await _running(daemons))
    instance = await daemons.restart()
    after = _work(instance)
    assert after is not before
    assert after.power is PowerState.RUNNING
    assert (after.xid, after.started) == (before.xid, before.started)
    assert instance.names("work") == []
    await instance.power.shutdown(after, wait=True)


async def test_a_paused_qube_is_taken_over_and_goes_on(daemons: Daemons) -> None:
    instance = await _running(daemons)
    await instance.power.pause(_work(instance))
    instance = await daemons.restart()
    assert _work(instance).power is PowerState.PAUSED
    await instance.power.unpause(_work(instance))
    await instance.power.shutdown(_work(instance), wait=True)


async def test_a_new_qube_gets_a_number_that_none_has(daemons: Daemons) -> None:
    await _running(daemons)
    instance = await daemons.restart()
    other = await instance.qube("other")
    await instance.power.start(other)
    assert other.xid > _work(instance).xid


async def test_a_qube_that_ended_meanwhile_is_halted_and_keeps_what_it_wrote(
    daemons: Daemons,
) -> None:
    instance = await _running(daemons)
    pid = instance.world.running[_work(instance).uuid].machine.pid
    await daemons.undo.aclose()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not _alive(pid))
    instance = await daemons.start()
    work = _work(instance)
    assert work.halted
    assert work.volumes["private"].layers == ("1.qcow2",)
    assert instance.names("work") == [
        *("domain-stopped", "property-reset:xid", "property-reset:stubdom_xid"),
        *("property-reset:start_time", "domain-shutdown"),
    ]
    assert instance.world.store.load().runs == []
    assert not run_directory(instance.run, work.uuid).exists()


async def test_a_disposable_that_ended_meanwhile_is_gone(daemons: Daemons) -> None:
    instance = await daemons.start()
    await instance.template()
    mould = await instance.disposables()
    made = await instance.administration.create_disposable(mould, instance.system.dom0)
    await instance.power.start(made)
    pid = instance.world.running[made.uuid].machine.pid
    await daemons.undo.aclose()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not _alive(pid))
    instance = await daemons.start()
    assert not instance.system.has_name(made.name)


async def test_a_qube_that_was_starting_is_ended(daemons: Daemons) -> None:
    """Its agent has no identity yet, and whose start it was is not known any more."""
    instance = await daemons.start()
    await instance.template()
    work = await instance.qube("work")
    order = order_of(instance.world, work, None)
    spec = MachineSpec(
        name=machine_name(work.uuid),
        uid=order.uid,
        run=run_directory(instance.run, work.uuid),
        disks=(),
        kernel=order.kernel,
        shape=order.shape,
    )
    machine = await daemons.engine.launch(spec)
    await instance.world.store.write(put_run(Run(work.uuid, 1, 1.0)))
    instance = await daemons.restart()
    assert _work(instance).halted
    assert not _alive(machine.pid)
    await instance.power.start(_work(instance))


async def test_a_machine_that_cannot_be_reached_is_ended(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.daemon.lifecycle.running.READOPT_TIMEOUT", 0.3)
    instance = await _running(daemons)
    pid = instance.world.running[_work(instance).uuid].machine.pid
    await daemons.undo.aclose()
    os.kill(pid, signal.SIGSTOP)
    instance = await daemons.start()
    assert _work(instance).halted
    assert not _alive(pid)


async def test_a_qube_that_nothing_is_known_of_can_be_killed(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _running(daemons)

    async def breaks(_name: str, _run: Path) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(daemons.engine, "adopt", breaks)
        instance = await daemons.restart()
    work = _work(instance)
    assert work.power is PowerState.TRANSIENT
    await instance.power.kill(work)
    assert work.halted
    assert instance.processes() == set()
    await instance.power.start(work)


async def test_a_run_of_a_qube_that_is_no_more_is_forgotten(daemons: Daemons) -> None:
    instance = await daemons.start()
    await instance.world.store.write(put_run(Run(uuid4(), 7, 1.0)))
    instance = await daemons.restart()
    assert instance.world.store.load().runs == []
    assert instance.world.next_xid() == 8


async def test_what_nothing_knows_of_is_removed(daemons: Daemons) -> None:
    instance = await _running(daemons)
    work = _work(instance)
    stray = run_directory(instance.run, uuid4())
    odd = instance.run / "qubes" / "odd"
    file = instance.home / "volumes" / str(uuid4()) / "private" / "1.qcow2"
    for place in (stray, odd, file.parent):
        place.mkdir(parents=True)
    file.write_bytes(b"left")
    machine = daemons.engine._machines.pop(machine_name(work.uuid))
    daemons.engine._machines.update({machine.name: machine, "qube-none": machine})
    released: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        async def release(name: str) -> None:
            released.append(name)

        patch.setattr(daemons.engine, "release", release)
        await reconcile.clear_leftovers(instance.world, instance.snapshots)
    del daemons.engine._machines["qube-none"]
    assert released == ["qube-none"]
    assert not stray.exists()
    assert not odd.exists()
    assert not file.exists()
    assert run_directory(instance.run, work.uuid).exists()
    assert work.power is PowerState.RUNNING


async def test_a_disposable_made_for_a_call_ends_with_it_though_the_daemon_is_another(
    daemons: Daemons,
) -> None:
    instance = await daemons.start()
    await instance.template()
    mould = await instance.disposables()
    made = await instance.administration.create_disposable(
        mould, instance.system.dom0, fleeting=True
    )
    await instance.power.start(made)
    instance = await daemons.restart()
    await until(lambda: not instance.system.has_name(made.name))
    assert instance.processes() == set()


async def test_a_disposable_whose_call_goes_on_stays(daemons: Daemons) -> None:
    instance = await daemons.start()
    await instance.template()
    mould = await instance.disposables()
    made = await instance.administration.create_disposable(
        mould, instance.system.dom0, fleeting=True
    )
    await instance.power.start(made)
    calls = instance.world.running[made.uuid].calls
    # The agent has its answer ready, which waits for us to begin.
    text = f"{user()}:nogui:QUBESRPC no.such.Service dom0"
    connection = await calls.open(MessageType.EXEC_CMDLINE, text)
    instance = await daemons.restart()
    assert instance.system.named(made.name).power is PowerState.RUNNING
    os.close(connection.end)
    await until(lambda: not instance.system.has_name(made.name))


async def test_a_disposable_that_nobody_started_in_time_is_removed(daemons: Daemons) -> None:
    instance = await daemons.start()
    await instance.template()
    mould = await instance.disposables()
    dom0 = instance.system.dom0
    called = await instance.administration.create_disposable(mould, dom0, fleeting=True)
    asked = await instance.administration.create_disposable(mould, dom0)
    instance = await daemons.restart()
    assert not instance.system.has_name(called.name)
    assert instance.system.named(asked.name).halted


def _alive(pid: int) -> bool:
    try:
        state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
