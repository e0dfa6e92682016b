"""Disposables that are started ahead of their use (admin-api.md section 8.4)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from insula.daemon.lifecycle import preloading, preloading_triggers, reconcile
from insula.daemon.model import members
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.rpc.services import Outcome
from tests.serving import (
    TEMPLATE,
    TIMEOUT,
    Instance,
    end_machines,
    memory_engine,
    open_instance,
    serving,
)

MAX = ("admin.vm.feature.Set", "mould", members.LIMIT)
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _ready_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ready(*_call: object, **_options: object) -> Outcome:
        return Outcome(0, b"")

    monkeypatch.setattr(preloading, "call_service", ready)
    monkeypatch.setattr(preloading, "available_memory", lambda: 64 * GIB)


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as made:
        await made.template()
        await made.disposables()
        await made.ok("admin.vm.feature.Set", "mould", members.DELAY, b"0")
        yield made


def _waiting(instance: Instance, name: str = "mould") -> list[Qube]:
    system = instance.system
    if not system.has_name(name):
        return []
    found = [system.named(one) for one in members.members_of(system.named(name))]
    return [one for one in found if members.COMPLETED in one.features]


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)


async def _filled(instance: Instance, count: int) -> list[Qube]:
    await _until(lambda: len(_waiting(instance)) == count)
    return _waiting(instance)


def _disposables(instance: Instance) -> list[Qube]:
    mould = instance.system.named("mould")
    return instance.system.made_from(mould)


async def test_as_many_wait_as_are_to(instance: Instance) -> None:
    await instance.ok(*MAX, b"2")
    waiting = await _filled(instance, 2)
    assert [one.power for one in waiting] == [PowerState.PAUSED] * 2
    assert instance.names("mould").count("domain-preload-dispvm-start") == 1
    for one in waiting:
        assert one.features["internal"] == "1"
        assert members.IN_PROGRESS not in one.features
        answer = await instance.ok("admin.vm.property.Get", one.name, "is_preload")
        assert answer == "default=True type=bool True"
    await instance.ok(*MAX, b"1")
    kept = await _filled(instance, 1)
    await _until(lambda: _disposables(instance) == kept)
    assert kept == waiting[:1]
    await instance.ok("admin.vm.feature.Remove", "mould", members.LIMIT)
    await _until(lambda: not _disposables(instance))
    assert members.MEMBERS not in instance.system.named("mould").features


async def test_one_that_waits_is_taken_and_replaced(instance: Instance) -> None:
    await instance.qube("work")
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    taken = await instance.ask("admin.vm.CreateDisposable", "mould", source="work")
    assert taken == waiting.name.encode()
    assert waiting.power is PowerState.RUNNING
    assert not {"internal", members.COMPLETED} & waiting.features.keys()
    assert {"created-by-work", "disp-created-by-work"} <= waiting.tags
    assert not {"created-by-dom0", "disp-created-by-dom0"} & waiting.tags
    answer = await instance.ok("admin.vm.property.Get", waiting.name, "is_preload")
    assert answer == "default=True type=bool False"
    used = [one for one in instance.told if one.name == "domain-preload-dispvm-used"]
    assert [one.fields for one in used] == [{"dispvm": waiting.name, "delay": "0.0"}]
    (next_,) = await _filled(instance, 1)
    assert next_ is not waiting
    await instance.ok("admin.vm.Kill", waiting.name)
    assert not instance.system.has_name(waiting.name)


async def test_without_any_an_ordinary_one_is_made(instance: Instance) -> None:
    name = await instance.ok("admin.vm.CreateDisposable", "mould")
    assert instance.system.named(name).halted


async def test_the_limit_of_dom0_is_for_the_default_template(instance: Instance) -> None:
    other = await instance.qube("other", template_for_dispvms=True)
    await instance.ok("admin.vm.feature.Set", "dom0", members.LIMIT, b"1")
    await _filled(instance, 1)
    await instance.ok("admin.property.Set", "dom0", "default_dispvm", b"other")
    await _until(lambda: _waiting(instance, "other") and not _disposables(instance))
    assert len(instance.system.made_from(other)) == 1


async def test_a_round_is_waited_for(instance: Instance) -> None:
    await instance.ok(*MAX, b"2")
    await instance.ok("admin.vm.CreateDisposable", "mould", "preload")
    assert len(_waiting(instance)) == 2
    assert await instance.ok("admin.vm.CreateDisposable", "dom0", "preload") == ""
    await instance.ok("admin.property.Reset", "dom0", "default_dispvm")
    assert await instance.refused("admin.vm.CreateDisposable", "dom0", "preload") is None
    await instance.qube("work")
    await instance.ok("admin.vm.feature.Remove", TEMPLATE, members.READINESS)
    refused = await instance.refused("admin.vm.CreateDisposable", "mould", "preload")
    assert refused == "QubesValueError"


async def test_memory_limits_how_many(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    await instance.ok("admin.vm.feature.Set", "dom0", members.THRESHOLD, b"1000")
    await instance.ok("admin.vm.property.Set", "mould", "memory", b"500")
    monkeypatch.setattr(preloading, "available_memory", lambda: 1400 << 20)
    await instance.ok(*MAX, b"1")
    await instance.ok("admin.vm.CreateDisposable", "mould", "preload")
    assert _disposables(instance) == []
    monkeypatch.setattr(preloading, "available_memory", lambda: 1500 << 20)
    await instance.ok("admin.vm.CreateDisposable", "mould", "preload")
    assert len(_waiting(instance)) == 1


async def test_what_is_outdated_is_not_taken(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preloading, "_OUTDATED", 0.0)
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    await instance.ok("admin.vm.property.Set", "mould", "debug", b"True")
    name = await instance.ok("admin.vm.CreateDisposable", "mould")
    assert name != waiting.name
    await _until(lambda: not instance.system.has_name(waiting.name))
    assert instance.system.named(name).halted


async def test_a_new_root_renews_what_waits(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preloading_triggers, "AFTER_SHUTDOWN", 0.0)
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    template = instance.system.named(TEMPLATE)
    await instance.power.start(template)
    await instance.power.kill(template)
    await _until(lambda: not instance.system.has_name(waiting.name))
    await _filled(instance, 1)


async def test_a_changed_property_renews_what_waits(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preloading_triggers, "AFTER_CHANGE", 0.0)
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    await instance.ok("admin.vm.property.Set", "mould", "autostart", b"True")
    await instance.ok("admin.vm.CreateDisposable", "mould", "preload")
    assert _waiting(instance) == [waiting]
    await instance.ok("admin.vm.property.Set", "mould", "debug", b"True")
    await _until(lambda: not instance.system.has_name(waiting.name))
    (renewed,) = await _filled(instance, 1)
    assert renewed.properties["debug"] is True


async def test_other_firewall_rules_renew_what_waits(instance: Instance) -> None:
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    await instance.ok("admin.vm.firewall.Set", "mould", "", b"action=drop\n")
    await _until(lambda: not instance.system.has_name(waiting.name))
    (renewed,) = await _filled(instance, 1)
    assert renewed.firewall == instance.system.named("mould").firewall


async def test_another_template_renews_what_waits(instance: Instance) -> None:
    await instance.template("oak", "fedcba9876543210")
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    await instance.ok("admin.vm.property.Set", "mould", "template", b"oak")
    await _until(lambda: not instance.system.has_name(waiting.name))
    await _filled(instance, 1)


async def test_one_that_is_unpaused_by_hand_is_used(instance: Instance) -> None:
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    await instance.ok("admin.vm.Unpause", waiting.name)
    await _until(lambda: waiting.name not in members.members_of(instance.system.named("mould")))
    assert not {"internal", members.COMPLETED} & waiting.features.keys()
    await _filled(instance, 1)
    assert waiting.power is PowerState.RUNNING


async def test_one_that_ends_is_replaced(instance: Instance) -> None:
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    await instance.ok("admin.vm.Kill", waiting.name)
    await _until(lambda: _waiting(instance) not in ([], [waiting]))
    assert not instance.system.has_name(waiting.name)


async def test_what_does_not_come_up_is_removed_and_not_tried_for_ever(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def failing(*call: object, **_options: object) -> Outcome:
        calls.append(call)
        return Outcome(1, b"")

    monkeypatch.setattr(preloading, "call_service", failing)
    await instance.ok(*MAX, b"3")
    await _until(lambda: calls and not _disposables(instance))
    await instance.ok("admin.vm.CreateDisposable", "mould", "preload")
    assert len(calls) == 2
    assert members.MEMBERS not in instance.system.named("mould").features


async def test_one_that_only_starts_is_waited_for(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(*_call: object, **_options: object) -> Outcome:
        begun.set()
        await goes_on.wait()
        return Outcome(0, b"")

    monkeypatch.setattr(preloading, "call_service", slow)
    await instance.ok(*MAX, b"1")
    await asyncio.wait_for(begun.wait(), TIMEOUT)
    taking = asyncio.create_task(instance.ok("admin.vm.CreateDisposable", "mould"))
    await _until(lambda: members.MEMBERS not in instance.system.named("mould").features)
    goes_on.set()
    qube = instance.system.named(await taking)
    assert qube.power is PowerState.RUNNING
    assert not {"internal", members.IN_PROGRESS, members.COMPLETED} & qube.features.keys()


async def test_a_caller_that_is_gone_leaves_no_disposable(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    begun = asyncio.Event()

    async def never(*_given: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(instance.power, "unpause", never)
    mould, dom0 = instance.system.named("mould"), instance.system.dom0
    taking = asyncio.create_task(instance.preloading.take(mould, dom0, fleeting=True))
    await asyncio.wait_for(begun.wait(), TIMEOUT)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await _until(lambda: not instance.system.has_name(waiting.name))


async def test_a_disposable_template_goes_with_what_waits(instance: Instance) -> None:
    await instance.ok("admin.property.Reset", "dom0", "default_dispvm")
    await instance.ok(*MAX, b"2")
    await _filled(instance, 2)
    await instance.ok("admin.vm.Remove", "mould")
    assert {qube.name for qube in instance.system.in_order()} == {"dom0", TEMPLATE}


async def test_what_waits_keeps_nothing_from_being_changed(instance: Instance) -> None:
    await instance.ok("admin.property.Reset", "dom0", "default_dispvm")
    await instance.ok(*MAX, b"1")
    await _filled(instance, 1)
    await instance.ok("admin.vm.property.Set", "mould", "template_for_dispvms", b"False")
    await _until(lambda: not _disposables(instance))


async def test_host_sleep_drops_all_and_waking_brings_new_ones(instance: Instance) -> None:
    await instance.ok(*MAX, b"1")
    (waiting,) = await _filled(instance, 1)
    internal = "qubesd.internal.sock"
    assert await instance.ask("internal.SuspendPre", over=internal) == b""
    assert _disposables(instance) == []
    assert await instance.ask("internal.SuspendPost", over=internal) == b""
    (renewed,) = await _filled(instance, 1)
    assert renewed is not waiting


@pytest.mark.parametrize(
    ("limit", "ready", "kind"), [(b"x", b"1", "QubesValueError"), (b"1", b"", "QubesValueError")]
)
async def test_limits_that_cannot_be(
    instance: Instance, limit: bytes, ready: bytes, kind: str
) -> None:
    await instance.ok("admin.vm.feature.Set", TEMPLATE, members.READINESS, ready)
    assert await instance.refused(*MAX, limit) == kind


async def test_the_next_daemon_goes_on_with_what_waits(tmp_path: Path, instance: Instance) -> None:
    home, run = tmp_path / "other", instance.run / "other"
    run.mkdir()
    engine = memory_engine()
    async with AsyncExitStack() as first:
        one = await open_instance(first, home, run, engine)
        await one.preloading.begin()
        await one.template()
        await one.disposables()
        await one.ok(*MAX, b"2")
        names = [qube.name for qube in await _filled(one, 2)]
        half = one.system.named(names[1])
        async with one.world.editing() as edit:
            del edit.touch(half).features[members.COMPLETED]
    async with AsyncExitStack() as second:
        second.push_async_callback(end_machines, engine)
        other = await open_instance(second, home, run, engine)
        reconcile.expect(other.world, other.runs)
        await reconcile.take_all_over(other.world, other.power, other.runs)
        await other.networking.begin()
        await other.preloading.begin()
        waiting = await _filled(other, 2)
        assert waiting[0].name == names[0]
        assert not other.system.has_name(names[1])
        name = await other.ok("admin.vm.CreateDisposable", "mould")
        assert name == names[0]
        assert other.system.named(name).power is PowerState.RUNNING
