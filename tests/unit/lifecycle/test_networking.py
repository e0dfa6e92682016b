"""Cables of running qubes: laid, moved and taken up as their netvms say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from insula.daemon.engine.interface import FIRST_CARD, Card, EngineError
from insula.daemon.engine.memory.engine import MemoryMachine
from insula.daemon.lifecycle import networking, reconcile
from insula.daemon.model.qube import Qube
from tests.serving import (
    TIMEOUT,
    Holder,
    Instance,
    end_machines,
    memory_engine,
    open_instance,
    serving,
)


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as made:
        await made.template()
        yield made


async def provider(instance: Instance, name: str) -> Qube:
    """A running qube that provides network and has none."""
    qube = await instance.qube(name, provides_network=True)
    await instance.power.start(qube)
    return qube


async def client(instance: Instance, name: str, netvm: str) -> Qube:
    """A running qube behind a provider."""
    qube = await instance.qube(name, netvm=netvm)
    await instance.power.start(qube)
    return qube


def machine(instance: Instance, qube: Qube) -> MemoryMachine:
    found = instance.world.running[qube.uuid].machine
    assert isinstance(found, MemoryMachine)
    return found


def cards(instance: Instance, qube: Qube) -> set[int]:
    return set(machine(instance, qube).macs)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_client_is_connected_with_its_provider(instance: Instance) -> None:
    net = await provider(instance, "net")
    work = await client(instance, "work", "net")
    await until(lambda: cards(instance, work) == {FIRST_CARD})
    assert cards(instance, net) == {work.xid}


async def test_a_client_that_ends_leaves_nothing(instance: Instance) -> None:
    net = await provider(instance, "net")
    work = await client(instance, "work", "net")
    await until(lambda: cards(instance, work))
    await instance.power.kill(work)
    await until(lambda: not cards(instance, net))


async def test_another_netvm_takes_a_running_client_over(instance: Instance) -> None:
    one, other = await provider(instance, "one"), await provider(instance, "other")
    work = await client(instance, "work", "one")
    await until(lambda: cards(instance, work) and cards(instance, one))
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"other")
    await until(lambda: cards(instance, other) == {work.xid} and not cards(instance, one))
    await until(lambda: cards(instance, work) == {FIRST_CARD})
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"")
    await until(lambda: not cards(instance, work) and not cards(instance, other))


async def test_a_provider_that_returns_finds_its_clients(instance: Instance) -> None:
    net = await provider(instance, "net")
    work = await client(instance, "work", "net")
    await until(lambda: cards(instance, work))
    await instance.power.kill(net)
    assert cards(instance, work) == {FIRST_CARD}
    await instance.power.start(net)
    await until(lambda: cards(instance, net) == {work.xid})
    assert cards(instance, work) == {FIRST_CARD}


async def test_what_stands_still_is_connected_once_it_goes_on(instance: Instance) -> None:
    one, other = await provider(instance, "one"), await provider(instance, "other")
    work = await client(instance, "work", "one")
    await until(lambda: cards(instance, work) and cards(instance, one))
    await instance.power.pause(work)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"other")
    await asyncio.sleep(0.1)
    assert cards(instance, one) == {work.xid}
    await instance.power.unpause(work)
    assert not cards(instance, one)
    assert cards(instance, other) == {work.xid}


async def test_the_next_daemon_knows_the_cables(tmp_path: Path) -> None:
    engine, holder = memory_engine(), Holder()
    with TemporaryDirectory(prefix="insula-") as run:
        async with AsyncExitStack() as end:
            end.callback(holder.close)
            end.push_async_callback(end_machines, engine)
            async with AsyncExitStack() as undo:
                first = await open_instance(undo, tmp_path / "home", Path(run), engine, holder)
                await first.template()
                await provider(first, "net")
                work = await client(first, "work", "net")
                await until(lambda: cards(first, work))
            held = set(holder.held)
            assert held
            async with AsyncExitStack() as undo:
                second = await open_instance(undo, tmp_path / "home", Path(run), engine, holder)
                reconcile.expect(second.world, second.runs)
                await reconcile.take_all_over(second.world, second.power, second.runs)
                await second.networking.begin()
                work = second.system.named("work")
                await second.networking.settle(work)
                assert set(holder.held) == held
                assert cards(second, work) == {FIRST_CARD}
                await second.power.kill(work)
                await until(lambda: not holder.held)
                assert not cards(second, second.system.named("net"))


@pytest.mark.parametrize("first", ["client", "provider"])
async def test_whoever_starts_first_the_other_is_found(instance: Instance, first: str) -> None:
    net = await instance.qube("net", provides_network=True)
    work = await instance.qube("work", netvm="net")
    for qube in (work, net) if first == "client" else (net, work):
        await instance.power.start(qube)
    await until(lambda: cards(instance, work) == {FIRST_CARD} and cards(instance, net))


async def test_what_failed_is_tried_again(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networking, "_PAUSES", (0.05, 0.05))
    net = await provider(instance, "net")
    plug, failures = MemoryMachine.plug_card, [2]

    async def fails_twice(machine: MemoryMachine, card: Card) -> None:
        if failures[0]:
            failures[0] -= 1
            raise EngineError("not now")
        await plug(machine, card)

    monkeypatch.setattr(MemoryMachine, "plug_card", fails_twice)
    work = await client(instance, "work", "net")
    await until(lambda: cards(instance, work) == {FIRST_CARD})
    assert cards(instance, net) == {work.xid}


async def test_what_keeps_failing_is_given_up(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networking, "_PAUSES", (0.01, 0.01))
    tries: list[None] = []

    async def fails(_machine: MemoryMachine, _card: Card) -> None:
        tries.append(None)
        raise EngineError("never")

    monkeypatch.setattr(MemoryMachine, "plug_card", fails)
    await provider(instance, "net")
    work = await client(instance, "work", "net")
    await until(lambda: len(tries) == 3)
    await asyncio.sleep(0.1)
    assert len(tries) == 3
    assert not cards(instance, work)
