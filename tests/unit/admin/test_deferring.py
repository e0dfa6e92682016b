"""Networks given to qubes that stand still (admin-api.md section 8.3)."""

import asyncio

import pytest

from insula.daemon.rpc.services import Outcome, ServiceError
from insula.protocol.admin import Event
from tests.serving import TEMPLATE, TIMEOUT, Instance

FEATURE = "deferred-netvm-original"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Services that were called; the second one fails, and all is as if it had not."""
    called: list[str] = []

    async def call_service(_calls: object, service: str, *, timeout: float) -> Outcome:
        called.append(service)
        assert timeout == 10
        if len(called) == 2:
            raise ServiceError("it broke off")
        return Outcome(0, b"")

    monkeypatch.setattr("insula.daemon.lifecycle.deferring.call_service", call_service)
    return called


async def _standing_still(instance: Instance, how: str = "Pause") -> None:
    """Let work stand still, between two providers that run."""
    await instance.ok("admin.vm.feature.Set", TEMPLATE, "qrexec", b"1")
    for name in ("one", "two"):
        await instance.qube(name, provides_network=True, netvm="")
        await instance.ok("admin.vm.Start", name)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"one")
    await instance.ok("admin.vm.Start", "work")
    await instance.ok(f"admin.vm.{how}", "work")


async def _remembered(instance: Instance) -> str | None:
    """The netvm that work had when it began to stand still; None where it has none other now."""
    if FEATURE not in (await instance.ok("admin.vm.feature.List", "work")).splitlines():
        return None
    return await instance.ok("admin.vm.feature.Get", "work", FEATURE)


@pytest.mark.parametrize(("how", "back"), [("Pause", "Unpause"), ("Suspend", "Resume")])
async def test_a_change_waits_for_its_qube(
    instance: Instance, services: list[str], how: str, back: str
) -> None:
    await _standing_still(instance, how)
    with instance.listening() as told:
        await instance.ok("admin.vm.property.Set", "work", "netvm", b"two")
    fields = {"feature": FEATURE, "value": "one"}
    assert Event("work", f"domain-feature-set:{FEATURE}", fields) in told
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"")
    assert await _remembered(instance) == "one"
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"two")
    await instance.ok(f"admin.vm.{back}", "work")
    assert await _remembered(instance) is None
    assert services == ["qubes.WaitForNetworkUplink"]
    await instance.ok(f"admin.vm.{how}", "work")
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"one")
    await instance.ok(f"admin.vm.{back}", "work")
    assert len(services) == 2


async def test_a_change_taken_back_is_none(instance: Instance, services: list[str]) -> None:
    await _standing_still(instance)
    for provider in (b"two", b"one"):
        await instance.ok("admin.vm.property.Set", "work", "netvm", provider)
    assert await _remembered(instance) is None
    await instance.ok("admin.vm.Unpause", "work")
    assert services == []


async def test_the_default_network_changes_for_qubes_that_stand_still_too(
    instance: Instance, services: list[str]
) -> None:
    await _standing_still(instance)
    await instance.ok("admin.vm.property.Reset", "work", "netvm")
    assert await _remembered(instance) == "one"
    await instance.ok("admin.property.Set", "dom0", "default_netvm", b"two")
    assert await _remembered(instance) == "one"
    await instance.ok("admin.property.Reset", "dom0", "default_netvm")
    await instance.ok("admin.vm.Unpause", "work")
    assert await _remembered(instance) is None
    assert services == []  # There is no network to wait for.


@pytest.mark.parametrize("ending", ["its provider starts", "it ends"])
async def test_nothing_waits_where_there_is_nothing_to_wait_for(
    instance: Instance, services: list[str], ending: str
) -> None:
    await _standing_still(instance)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"two")
    if ending == "it ends":
        await instance.ok("admin.vm.Kill", "work")
    else:
        await instance.ok("admin.vm.Kill", "two")
        assert await _remembered(instance) == "one"
        await instance.ok("admin.vm.Start", "two")
    async with asyncio.timeout(TIMEOUT):
        while await _remembered(instance) is not None:
            await asyncio.sleep(0.01)
    assert services == []


async def test_it_is_no_disposables_that_is_made_meanwhile(instance: Instance) -> None:
    await instance.ok("admin.vm.property.Set", "work", "template_for_dispvms", b"True")
    await instance.ok("admin.vm.feature.Set", "work", "x-other", b"1")
    await _standing_still(instance)
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"two")
    made = await instance.ok("admin.vm.CreateDisposable", "work")
    features = (await instance.ok("admin.vm.feature.List", made)).split()
    assert "x-other" in features
    assert FEATURE not in features
    assert await instance.ok("admin.vm.property.Get", made, "netvm") == "default=False type=vm two"


async def test_running_and_halted_qubes_change_at_once(instance: Instance) -> None:
    await _standing_still(instance)
    await instance.ok("admin.vm.Unpause", "work")
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"two")
    assert await _remembered(instance) is None
    await instance.ok("admin.vm.Kill", "work")
    await instance.ok("admin.vm.property.Set", "work", "netvm", b"one")
    assert await _remembered(instance) is None
