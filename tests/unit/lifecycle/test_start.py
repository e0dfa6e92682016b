"""Starts: their events, what keeps a qube from starting, and what is left of one that fails."""

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from insula.daemon.engine.interface import EngineError
from insula.daemon.engine.memory.engine import MemoryMachine
from insula.daemon.lifecycle.planning import basis_of, order_of
from insula.daemon.lifecycle.running import machine_name, run_directory
from insula.daemon.model.errors import (
    QubeNotFoundError,
    QubeStateError,
    RefusedError,
)
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.storage.errors import MissingFileError
from insula.daemon.store import store
from insula.daemon.store.store import StoreError
from insula.protocol.errors import ReportableError
from tests.serving import TEMPLATE, Instance, serving

from .conftest import until

RESETS = ["property-reset:xid", "property-reset:stubdom_xid", "property-reset:start_time"]
STARTED = [
    *("domain-pre-start", "domain-verify-files", "domain-pre-spawn", *RESETS, "domain-spawn"),
    *("domain-qdb-create", "domain-pre-unpaused", "domain-unpaused", "domain-start"),
]


@pytest_asyncio.fixture
async def cloning(tmp_path: Path) -> AsyncIterator[Instance]:
    """An instance whose qubes start from snapshots."""
    async with serving(tmp_path / "home", clone=True) as made:
        await made.template()
        yield made


async def test_a_start_tells_its_events_in_order(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    assert instance.names("work") == STARTED
    assert instance.told[0].fields == {"start_guid": "True", "mem_required": "400"}
    assert instance.told[-1].fields == {"start_guid": "True"}
    assert work.power is PowerState.RUNNING
    assert work.xid > 0
    assert work.started is not None


async def test_a_running_qube_is_started_without_effect(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    instance.told.clear()
    await instance.power.start(work)
    assert instance.told == []


async def test_starts_at_once_are_one(instance: Instance, work: Qube) -> None:
    await asyncio.gather(*(instance.power.start(work) for _ in range(5)))
    assert instance.names("work") == STARTED
    assert len(instance.processes()) == 1


async def test_starts_at_once_fail_alike(
    instance: Instance, work: Qube, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _let_launches_fail(instance, monkeypatch)
    ends = await asyncio.gather(
        *(instance.power.start(work) for _ in range(3)), return_exceptions=True
    )
    assert {str(end) for end in ends} == {"no machine today"}
    assert instance.names("work").count("domain-start-failed") == 1


async def test_who_gives_up_waiting_does_not_end_the_start(instance: Instance, work: Qube) -> None:
    waiting = asyncio.create_task(instance.power.start(work))
    await until(lambda: work.power is PowerState.TRANSIENT)
    waiting.cancel()
    await instance.power.start(work)
    assert work.power is PowerState.RUNNING


async def test_a_prohibited_start_is_refused_with_its_reason(
    instance: Instance, work: Qube
) -> None:
    work.features["prohibit-start"] = "under repair"
    with pytest.raises(RefusedError, match="under repair") as refusal:
        await instance.power.start(work)
    assert refusal.value.api_name == "QubesException"
    assert "qvm-features --unset work prohibit-start" in (refusal.value.hint or "")
    assert instance.told == []


async def test_a_qube_that_is_being_restored_does_not_start(instance: Instance, work: Qube) -> None:
    work.tags.add("backup-restore-in-progress")
    with pytest.raises(QubeStateError, match="restored"):
        await instance.power.start(work)
    assert instance.names("work") == ["domain-pre-start", "domain-start-failed"]
    assert work.power is PowerState.HALTED


async def test_a_start_that_never_got_a_machine_tells_of_no_end(
    instance: Instance, work: Qube
) -> None:
    work.properties["kernel"] = ""
    with pytest.raises(RefusedError, match="has no kernel"):
        await instance.power.start(work)
    assert instance.names("work") == [
        *("domain-pre-start", "domain-verify-files", "domain-start-failed")
    ]
    assert instance.world.store.load().runs == []


async def test_a_qube_that_is_larger_than_the_host_does_not_start(
    instance: Instance, work: Qube
) -> None:
    instance.system.host_memory = 1000
    await instance.ok("admin.vm.property.Set", "work", "memory", b"1001")
    instance.told.clear()
    assert await instance.refused("admin.vm.Start", "work") == "QubesMemoryError"
    assert instance.names("work") == [
        *("domain-pre-start", "domain-verify-files", "domain-start-failed"),
    ]
    await _nothing_is_left(instance, work)
    await instance.ok("admin.vm.property.Set", "work", "memory", b"1000")
    await instance.ok("admin.vm.Start", "work")


async def test_a_missing_kernel_is_named(instance: Instance, work: Qube) -> None:
    work.properties["kernel"] = "6.66"
    with pytest.raises(ReportableError, match=r"6\.66"):
        await instance.power.start(work)


async def test_a_start_whose_agent_fails_is_undone_and_told_of(
    instance: Instance, work: Qube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.daemon.lifecycle.running.BOOT_TIMEOUT", 0.3)
    await _let_agents_be_deaf(instance, monkeypatch)
    with pytest.raises(ReportableError):
        await instance.power.start(work)
    assert instance.names("work") == [
        *STARTED[:-1],
        *("domain-start-failed", "domain-stopped", *RESETS, "domain-shutdown"),
    ]
    await _nothing_is_left(instance, work)


async def test_a_damaged_volume_is_named(instance: Instance, work: Qube) -> None:
    root = instance.system.root_template(work).volumes["root"]
    layer = instance.home / "volumes" / str(root.owner) / "root" / root.layers[0]
    layer.unlink()
    with pytest.raises(MissingFileError, match=layer.name):
        await instance.power.start(work)
    await _nothing_is_left(instance, work)


async def test_a_lost_agent_volume_is_made_anew(instance: Instance, work: Qube) -> None:
    await instance.power.start(work)
    await instance.power.kill(work)
    (instance.home / "agent.img").unlink()
    with pytest.raises(ReportableError, match="agent volume is gone"):
        await instance.power.start(work)
    await instance.power.start(work)


async def test_a_qube_removed_meanwhile_is_not_started(instance: Instance, work: Qube) -> None:
    async with instance.world.lock(work.uuid):
        starting = asyncio.create_task(instance.power.start(work))
        removing = asyncio.create_task(instance.administration.remove(work))
        await asyncio.sleep(0)
        async with instance.world.editing() as edit:
            edit.remove(work)
    with pytest.raises(QubeNotFoundError):
        await starting
    with pytest.raises(QubeNotFoundError):
        await removing


async def test_a_disposable_whose_start_fails_is_gone(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mould = await instance.disposables()
    await _let_launches_fail(instance, monkeypatch)
    made = await instance.administration.create_disposable(mould, instance.system.dom0)
    instance.told.clear()
    with pytest.raises(EngineError):
        await instance.power.start(made)
    assert instance.names() == [
        *("domain-pre-start", "domain-verify-files", "domain-pre-spawn", "domain-start-failed"),
        *("domain-pre-delete", "domain-delete", "domain-remove-from-disk"),
    ]
    assert not instance.system.has_name(made.name)
    stored = instance.world.store.load()
    assert stored.runs == []
    assert made.uuid not in {qube.uuid for qube in stored.qubes}


async def test_what_gives_network_starts_first(instance: Instance, work: Qube) -> None:
    router = await instance.qube("router", provides_network=True)
    await instance.qube("firewall", provides_network=True, netvm="router")
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"firewall")
    instance.told.clear()
    await instance.power.start(work)
    started = [one.subject for one in instance.told if one.name == "domain-start"]
    assert started == ["router", "firewall", "work"]
    spawning = [one.subject for one in instance.told if one.name == "domain-pre-spawn"]
    assert spawning == ["router", "firewall", "work"]
    assert router.power is PowerState.RUNNING


async def test_a_qube_does_not_start_when_its_network_does_not(
    instance: Instance, work: Qube
) -> None:
    router = await instance.qube("router", provides_network=True)
    router.features["prohibit-start"] = "no"
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"router")
    with pytest.raises(RefusedError, match="router"):
        await instance.power.start(work)
    assert work.power is PowerState.HALTED


async def test_networks_that_wait_for_each_other_do_not_wait_for_ever(instance: Instance) -> None:
    """As when they were turned round while they start; no such loop can be set up at rest."""
    one = await instance.qube("one", provides_network=True)
    other = await instance.qube("other", provides_network=True)
    one.properties["netvm"], other.properties["netvm"] = other.uuid, one.uuid
    async with asyncio.timeout(10):
        await asyncio.gather(instance.power.start(one), instance.power.start(other))
    assert {one.power, other.power} == {PowerState.RUNNING}


async def test_a_start_that_the_store_cannot_hold_is_refused(
    instance: Instance, work: Qube, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_changes: object) -> None:
        raise OSError(errno.ENOSPC, "the store is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_execute", full)
        with pytest.raises(StoreError, match="full"):
            await instance.power.start(work)
    assert work.power is PowerState.HALTED
    assert instance.processes() == set()
    await instance.power.start(work)


async def _let_launches_fail(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    async def launch(_spec: object) -> None:
        raise EngineError("no machine today")

    monkeypatch.setattr(instance.world.engine, "launch", launch)


async def _let_agents_be_deaf(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents' processes are stopped as soon as they are there."""
    launch = instance.world.engine.launch

    async def paused(spec: object) -> object:
        machine = await launch(spec)  # type: ignore[arg-type]
        await machine.pause()
        return machine

    monkeypatch.setattr(instance.world.engine, "launch", paused)


async def _nothing_is_left(instance: Instance, qube: Qube) -> None:
    assert qube.power is PowerState.HALTED
    assert (qube.xid, qube.started) == (-1, None)
    assert instance.processes() == set()
    assert instance.world.running == {}
    assert machine_name(qube.uuid) not in await instance.world.engine.machines()
    assert not Path(run_directory(instance.run, qube.uuid)).exists()
    assert instance.world.store.load().runs == []


@pytest.mark.parametrize(
    ("holder", "vcpus", "added"), [(None, 0, 0), ("work", 3, 2), (TEMPLATE, 2, 1), ("work", 1, 0)]
)
async def test_a_clone_gets_the_processors_it_was_told(
    cloning: Instance, holder: str | None, vcpus: int, added: int
) -> None:
    work = await cloning.qube("work")
    if holder is not None:
        number = str(vcpus).encode()
        await cloning.ok("admin.vm.property.Set", holder, "vcpus", number)
    await cloning.snapshots.ensure(work)
    await cloning.power.start(work)
    machine = cloning.world.running[work.uuid].machine
    assert isinstance(machine, MemoryMachine)
    assert machine.processors_added == added


async def test_more_processors_than_usual_need_a_machine_of_another_shape(
    cloning: Instance,
) -> None:
    work = await cloning.qube("work")
    usual = basis_of(cloning.world, work)
    await cloning.ok("admin.vm.property.Set", "work", "vcpus", b"8")
    more = basis_of(cloning.world, work)
    assert usual is not None
    assert more is not None
    assert (usual.shape.maximum_cpus, more.shape.maximum_cpus) == (4, 8)
    order = order_of(cloning.world, work, None)
    assert order.first_shape.cpus == 8
