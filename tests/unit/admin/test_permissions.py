"""What qubes other than dom0 get to see, by what the policy allows (admin-api.md section 1.7)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from insula.daemon.admin.permissions import Allows, is_told, listed, nothing_allowed
from insula.daemon.admin.server import SOCKET_NAME
from insula.daemon.model.qube import Qube
from insula.protocol import admin
from insula.protocol.admin import Event
from tests.serving import TIMEOUT, Instance


@asynccontextmanager
async def connected(instance: Instance, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_unix_connection(instance.run / SOCKET_NAME)
    try:
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(TIMEOUT):
            yield reader
    finally:
        writer.close()


def allowed(*calls: tuple[str, str, str, str]) -> Allows:
    """A policy that allows these: service, argument, source, target."""

    def allows(service: str, argument: str, source: Qube, target: Qube | None) -> bool:
        name = "@adminvm" if target is None else target.name
        return (service, argument, source.name, name) in calls

    return allows


async def test_a_qube_lists_those_it_may(instance: Instance) -> None:
    system, other = instance.system, await instance.qube("other")
    work = system.named("work")
    policy = allowed(("admin.vm.List", "", "work", "other"), ("admin.vm.List", "", "other", "work"))
    assert listed(policy, system, work, system.in_order()) == [other]
    assert listed(nothing_allowed, system, work, system.in_order()) == []
    assert listed(nothing_allowed, system, system.dom0, [work]) == [work]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Event("other", "domain-start", {}), True),
        (Event("other", "domain-shutdown", {}), False),
        (Event("other", "domain-feature-set:a", {"feature": "a"}), True),
        (Event("", "domain-add", {"vm": "other"}), True),
        (Event("", "domain-add", {"vm": "work"}), False),
        (Event("", "property-set:clockvm", {"name": "clockvm"}), True),
        (Event("", "property-set:updatevm", {"name": "updatevm"}), False),
        (Event("gone", "domain-start", {}), False),
    ],
)
async def test_a_qube_hears_of_what_it_may(instance: Instance, event: Event, told: bool) -> None:
    await instance.qube("other")
    policy = allowed(
        ("admin.Events", "domain-start", "work", "other"),
        ("admin.Events", "domain-feature-set_a", "work", "other"),
        ("admin.Events", "domain-add", "work", "other"),
        ("admin.Events", "property-set_clockvm", "work", "@adminvm"),
    )
    work = instance.system.named("work")
    assert is_told(policy, instance.system, work, event) is told
    assert is_told(nothing_allowed, instance.system, instance.system.dom0, event)
    assert not is_told(nothing_allowed, instance.system, work, event)


async def test_a_qube_hears_of_removals_as_of_what_it_may_see(instance: Instance) -> None:
    for name in ("seen", "hidden"):
        await instance.qube(name)
    await instance.ok("admin.vm.tag.Set", "seen", "shown")
    policy = b"admin.Events * work @tag:shown allow target=dom0\n"
    (instance.home / "policy.d" / "10-test.policy").write_bytes(policy)
    async with connected(instance, b"admin.Events work name dom0\0") as reader:
        await reader.readuntil(b"connection-established\0\0")
        for name in ("hidden", "seen"):
            await instance.ok("admin.vm.Remove", name)
        for event in ("domain-pre-delete", "domain-delete"):
            expected = admin.event("", event, {"vm": "seen"})
            assert await reader.readexactly(len(expected)) == expected


async def test_without_a_policy_a_qube_sees_nothing(instance: Instance) -> None:
    assert await instance.ask("admin.vm.List", "dom0", source="work") == b""
    assert await instance.ask("admin.vm.List", "work", source="work") == b""
