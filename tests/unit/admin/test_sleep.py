"""Qubes suspended and resumed, one by one and with the host (admin-api.md 4.2, 4.13, 8.3)."""

import asyncio

import pytest

from insula.daemon.model.qube import PowerState
from insula.daemon.rpc.services import Outcome, ServiceError
from insula.protocol.admin import Refusal
from tests.serving import Instance

INTERNAL = "qubesd.internal.sock"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Services that were called; each fails, which keeps nobody from anything."""
    called: list[str] = []

    async def call_service(_calls: object, service: str, *, timeout: float) -> Outcome:
        called.append(service)
        assert timeout == 60
        if len(called) % 2:
            raise ServiceError("it broke off")
        return Outcome(127, b"")

    monkeypatch.setattr("insula.daemon.lifecycle.sleeping.call_service", call_service)
    return called


async def test_a_qube_sleeps_and_wakes(instance: Instance, services: list[str]) -> None:
    work = instance.system.named("work")
    await instance.power.start(work)
    instance.told.clear()
    assert await instance.ok("admin.vm.Suspend", "work") == ""
    assert (await instance.ok("admin.vm.CurrentState", "work")).endswith("Suspended")
    assert await instance.refused("admin.vm.Unpause", "work") == "QubesVMNotPausedError"
    assert await instance.ok("admin.vm.Resume", "work") == ""
    assert (await instance.ok("admin.vm.CurrentState", "work")).endswith("Running")
    assert services == ["qubes.SuspendPre", "qubes.SuspendPost"]
    assert instance.names("work") == [
        *("domain-pre-paused", "domain-paused"),
        *("domain-pre-unpaused", "domain-unpaused", "domain-resumed"),
    ]


async def test_what_is_paused_is_resumed_as_it_is_unpaused(
    instance: Instance, services: list[str]
) -> None:
    await instance.power.start(instance.system.named("work"))
    await instance.ok("admin.vm.Pause", "work")
    await instance.ok("admin.vm.Resume", "work")
    assert services == []


@pytest.mark.parametrize(
    ("method", "qube", "kind"),
    [
        ("Suspend", "dom0", "QubesVMError"),
        ("Suspend", "work", "QubesVMNotRunningError"),
        ("Resume", "dom0", None),
        ("Resume", "work", "QubesVMNotPausedError"),
    ],
)
async def test_refusals(instance: Instance, method: str, qube: str, kind: str | None) -> None:
    assert await instance.refused(f"admin.vm.{method}", qube) == kind


async def test_the_host_sleeps_and_wakes(instance: Instance, services: list[str]) -> None:
    work, other = instance.system.named("work"), await instance.qube("other")
    for qube in (work, other):
        await instance.power.start(qube)
    await instance.ok("admin.vm.Pause", "other")
    answer = await instance.ask("internal.SuspendPre", "dom0", "any", b"thing", over=INTERNAL)
    assert answer == b""
    assert (work.power, other.power) == (PowerState.SUSPENDED, PowerState.PAUSED)
    assert await instance.ask("internal.SuspendPost", over=INTERNAL) == b""
    assert (work.power, other.power) == (PowerState.RUNNING, PowerState.PAUSED)
    assert services == ["qubes.SuspendPreAll", "qubes.SuspendPostAll"]


async def test_all_get_ready_before_the_first_sleeps(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    qubes = [instance.system.named("work"), await instance.qube("other")]
    for qube in qubes:
        await instance.power.start(qube)
    seen: list[tuple[str, set[PowerState]]] = []

    async def call_service(_calls: object, service: str, *, timeout: float) -> Outcome:
        assert timeout == 60
        await asyncio.sleep(0.05 * len(seen))
        seen.append((service, {qube.power for qube in qubes}))
        return Outcome(0, b"")

    monkeypatch.setattr("insula.daemon.lifecycle.sleeping.call_service", call_service)
    for method in ("Pre", "Post"):
        assert await instance.ask(f"internal.Suspend{method}", over=INTERNAL) == b""
    assert seen == [
        *[("qubes.SuspendPreAll", {PowerState.RUNNING})] * 2,
        *[("qubes.SuspendPostAll", {PowerState.RUNNING})] * 2,
    ]


async def test_what_slept_before_the_host_sleeps_on(
    instance: Instance, services: list[str]
) -> None:
    work = instance.system.named("work")
    await instance.power.start(work)
    await instance.ok("admin.vm.Suspend", "work")
    await instance.ask("internal.SuspendPre", over=INTERNAL)
    await instance.ask("internal.SuspendPost", over=INTERNAL)
    assert work.power is PowerState.SUSPENDED
    assert services == ["qubes.SuspendPre"]


async def test_all_that_went_wrong_is_told_together(
    instance: Instance, services: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("work", "other"):
        qube = instance.system.named("work") if name == "work" else await instance.qube(name)
        await instance.power.start(qube)

    async def pause(*_qube: object) -> None:
        raise ServiceError("it goes on")

    monkeypatch.setattr(instance.power, "pause", pause)
    answer = await instance.ask("internal.SuspendPre", over=INTERNAL)
    assert isinstance(answer, Refusal)
    assert answer.kind == "QubesException"
    assert "work: it goes on" in answer.message
    assert "other: it goes on" in answer.message
    assert len(services) == 2
