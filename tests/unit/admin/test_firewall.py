"""Firewall rules over the Admin API (admin-api.md section 4.9)."""

import asyncio
import time

import pytest

from insula.daemon.model.qube import Qube
from tests.serving import TIMEOUT, Instance

METHOD = "admin.vm.firewall"


async def test_without_rules_everything_is_accepted(instance: Instance) -> None:
    assert await instance.ok(f"{METHOD}.Get", "work") == "action=accept\n"


async def test_rules_are_replaced_and_told_of(instance: Instance) -> None:
    rules = b"proto=tcp action=accept dstports=443 dst4=10.9.0.0/16 comment=wiki\naction=drop\n"
    assert await instance.ok(f"{METHOD}.Set", "work", "", rules) == ""
    assert await instance.ok(f"{METHOD}.Get", "work") == (
        "action=accept dst4=10.9.0.0/16 proto=tcp dstports=443-443 comment=wiki\naction=drop\n"
    )
    assert [(one.subject, one.name) for one in instance.told] == [("work", "firewall-changed")]
    work = instance.system.named("work")
    assert Qube.from_json(work.to_json()).firewall == work.firewall
    await instance.ok(f"{METHOD}.Reload", "work")
    assert instance.names() == ["firewall-changed"] * 2


async def test_no_rules_drop_everything(instance: Instance) -> None:
    await instance.ok(f"{METHOD}.Set", "work")
    assert await instance.ok(f"{METHOD}.Get", "work") == ""
    work = instance.system.named("work")
    assert Qube.from_json(work.to_json()).firewall == ()
    stored = work.to_json()
    del stored["firewall"]
    assert Qube.from_json(stored).firewall is None


@pytest.mark.parametrize(
    "rules", [b"\n", b"action=accept\n\n", b"nonsense", b"action=accept \xc3\xa9", b"action=drop x"]
)
async def test_what_is_no_rule_changes_nothing(instance: Instance, rules: bytes) -> None:
    assert await instance.refused(f"{METHOD}.Set", "work", "", rules) is None
    assert await instance.ok(f"{METHOD}.Get", "work") == "action=accept\n"
    assert instance.told == []


async def test_dom0_and_remote_qubes_have_none(instance: Instance) -> None:
    await instance.ok("admin.vm.Create.RemoteVM", "dom0", "", b"name=far label=red")
    for qube in ("dom0", "far"):
        for name in ("Get", "Set", "Reload"):
            assert await instance.refused(f"{METHOD}.{name}", qube) is None


async def test_rules_expire(instance: Instance) -> None:
    now = int(time.time())
    rules = f"action=accept expire={now - 5}\naction=accept expire={now + 1}\naction=drop"
    await instance.ok(f"{METHOD}.Set", "work", "", rules.encode())
    assert await instance.ok(f"{METHOD}.Get", "work") == (
        f"action=accept expire={now + 1}\naction=drop\n"
    )
    async with asyncio.timeout(TIMEOUT):
        while instance.names() != ["firewall-changed"] * 2:
            await asyncio.sleep(0.01)
    assert await instance.ok(f"{METHOD}.Get", "work") == "action=drop\n"
    assert instance.system.named("work").firewall == ("action=drop",)


async def test_disposables_take_their_templates_rules(instance: Instance) -> None:
    await instance.disposables("mould")
    await instance.ok(f"{METHOD}.Set", "mould", "", b"action=drop")
    name = await instance.ok("admin.vm.CreateDisposable", "mould")
    assert await instance.ok(f"{METHOD}.Get", name) == "action=drop\n"


async def test_rules_of_a_disposables_template_expire_in_it(instance: Instance) -> None:
    await instance.disposables("mould")
    until = int(time.time()) + 1
    rules = f"action=accept expire={until}\naction=drop"
    await instance.ok(f"{METHOD}.Set", "mould", "", rules.encode())
    name = await instance.ok("admin.vm.CreateDisposable", "mould")
    instance.told.clear()
    async with asyncio.timeout(TIMEOUT):
        while (name, "firewall-changed") not in [(one.subject, one.name) for one in instance.told]:
            await asyncio.sleep(0.01)
    assert instance.system.named(name).firewall == ("action=drop",)


async def test_neither_takes_an_argument(instance: Instance) -> None:
    for name in ("Get", "Set", "Reload"):
        assert await instance.refused(f"{METHOD}.{name}", "work", "x") is None
    for name in ("Get", "Reload"):
        assert await instance.refused(f"{METHOD}.{name}", "work", "", b"x") is None
