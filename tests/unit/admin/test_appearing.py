"""Devices that appear, go, and are given to qubes by themselves (devices.md section 3)."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from insula.daemon.lifecycle.asking import SOCKET_NAME, DeviceAgent, question
from insula.protocol.devices import DeviceInfo
from tests.serving import TIMEOUT, Instance

USB = "admin.vm.device.usb"
STICK = DeviceInfo(
    devclass="usb",
    backend="sys-usb",
    port="2-1",
    device_id="1234:abcd:S1:u080650",
    interfaces="u080650",
    described={"vendor": "Acme", "product": "Stick"},
)
OTHER = DeviceInfo(
    devclass="usb", backend="sys-usb", port="2-1", device_id="1:2::u030101", interfaces="u030101"
)
NAME = str(STICK.name)


@pytest.fixture(autouse=True)
async def _running(instance: Instance) -> None:
    await instance.power.start(await instance.qube("sys-usb"))
    await instance.power.start(instance.system.named("work"))
    await settled(instance)
    instance.told.clear()


async def settled(instance: Instance) -> None:
    """Let all that watches devices come to its end."""
    async with asyncio.timeout(TIMEOUT):
        while tasks := instance.appearing._tasks:
            await asyncio.wait(tuple(tasks))
            await asyncio.sleep(0)


async def plug(instance: Instance, *devices: DeviceInfo) -> None:
    instance.drivers["usb"].shown["sys-usb"] = list(devices)
    instance.appearing.changed(instance.system.named("sys-usb"))
    await settled(instance)


async def assign(
    instance: Instance,
    qube: str = "work",
    argument: str = "sys-usb+2-1+1234+abcd+S1+u080650",
    mode: str = "auto-attach",
    device_id: str = NAME.removeprefix("sys-usb:2-1:"),
) -> None:
    payload = f"mode='{mode}' device_id='{device_id}'".encode()
    await instance.ok(f"{USB}.Assign", qube, argument, payload)
    instance.told.clear()


def told(instance: Instance) -> list[tuple[str, str, str | None]]:
    return [
        (one.subject, one.name, one.fields.get("device", one.fields.get("port")))
        for one in instance.told
    ]


async def test_what_appears_and_goes_is_told_of(instance: Instance) -> None:
    await plug(instance, STICK)
    assert told(instance) == [
        ("sys-usb", "device-list-change:usb", None),
        ("sys-usb", "device-added:usb", NAME),
    ]
    instance.told.clear()
    await plug(instance, STICK)
    assert told(instance) == []
    await plug(instance)
    assert told(instance) == [
        ("sys-usb", "device-list-change:usb", None),
        ("sys-usb", "device-removed:usb", "sys-usb:2-1"),
    ]


async def test_another_device_in_the_port_is_another(instance: Instance) -> None:
    await plug(instance, STICK)
    instance.told.clear()
    await plug(instance, OTHER)
    assert [name for _, name, _ in told(instance)] == [
        "device-list-change:usb", "device-removed:usb", "device-added:usb"
    ]  # fmt: skip


async def test_an_assigned_device_is_given_when_it_appears(instance: Instance) -> None:
    await assign(instance)
    await plug(instance, STICK)
    assert told(instance)[2:] == [
        ("work", "device-pre-attach:usb", NAME),
        ("work", "device-attach:usb", NAME),
    ]
    assert "mode='auto-attach'" in await instance.ok(f"{USB}.Attached", "work")
    instance.told.clear()
    await plug(instance)
    assert told(instance) == [
        ("sys-usb", "device-list-change:usb", None),
        ("work", "device-pre-detach:usb", "sys-usb:2-1"),
        ("work", "device-detach:usb", "sys-usb:2-1"),
        ("sys-usb", "device-removed:usb", "sys-usb:2-1"),
    ]
    assert await instance.ok(f"{USB}.Attached", "work") == ""
    assert instance.drivers["usb"].given == []


async def test_a_device_that_vanishes_is_lost_though_its_driver_fails(instance: Instance) -> None:
    await assign(instance)
    await plug(instance, STICK)
    instance.drivers["usb"].broken = True
    await plug(instance)
    assert await instance.ok(f"{USB}.Attached", "work") == ""


async def test_a_backends_end_takes_its_devices_away(instance: Instance) -> None:
    await assign(instance)
    await plug(instance, STICK)
    instance.told.clear()
    await instance.power.kill(instance.system.named("sys-usb"))
    await settled(instance)
    assert ("work", "device-detach:usb", "sys-usb:2-1") in told(instance)
    assert await instance.ok(f"{USB}.Attached", "work") == ""


async def test_a_frontends_end_is_told_of(instance: Instance) -> None:
    await assign(instance)
    await plug(instance, STICK)
    instance.told.clear()
    await instance.power.kill(instance.system.named("work"))
    assert ("work", "device-detach:usb", "sys-usb:2-1") in told(instance)
    assert "attachment" not in await instance.ok(f"{USB}.Available", "sys-usb")


async def test_a_device_of_another_identity_is_not_given(instance: Instance) -> None:
    await assign(instance)
    await plug(instance, OTHER)
    assert await instance.ok(f"{USB}.Attached", "work") == ""


async def test_whatever_is_in_a_port_is_given(instance: Instance) -> None:
    await assign(instance, argument="sys-usb+2-1+_", device_id="*")
    await plug(instance, OTHER)
    assert "1:2::u030101" in await instance.ok(f"{USB}.Attached", "work")


async def test_an_assigned_device_is_given_at_a_start(instance: Instance) -> None:
    await instance.power.kill(instance.system.named("work"))
    await assign(instance, argument="sys-usb+_+1234+abcd+S1+u080650")
    await plug(instance, STICK)
    await instance.power.start(instance.system.named("work"))
    await settled(instance)
    assert instance.drivers["usb"].given == [("work", NAME, {})]


async def test_a_backend_that_starts_gives_what_it_has(instance: Instance) -> None:
    await assign(instance)
    await instance.power.kill(instance.system.named("sys-usb"))
    instance.drivers["usb"].shown["sys-usb"] = [STICK]
    await instance.power.start(instance.system.named("sys-usb"))
    await settled(instance)
    assert instance.drivers["usb"].given == [("work", NAME, {})]


async def test_automation_takes_nothing_away(instance: Instance) -> None:
    other = await instance.qube("other")
    await plug(instance, STICK)
    await instance.ok(f"{USB}.Attach", "work", "sys-usb+2-1")
    await assign(instance, "other")
    await instance.power.start(other)
    await settled(instance)
    assert await instance.ok(f"{USB}.Attached", "other") == ""


async def test_nobody_is_given_what_was_not_given_a_yes(instance: Instance) -> None:
    await assign(instance, mode="ask-to-attach")
    await plug(instance, STICK)
    assert await instance.ok(f"{USB}.Attached", "work") == ""


async def test_a_driver_that_fails_leaves_it(instance: Instance) -> None:
    await assign(instance)
    instance.drivers["usb"].broken = True
    await plug(instance, STICK)
    assert await instance.ok(f"{USB}.Attached", "work") == ""


async def test_a_required_device_is_given_before_a_qube_is_up(instance: Instance) -> None:
    await instance.power.kill(instance.system.named("work"))
    await assign(instance, mode="required")
    await plug(instance, STICK)
    instance.told.clear()
    await instance.ok("admin.vm.Start", "work")
    names = [name for subject, name, _ in told(instance) if subject == "work"]
    assert names.index("device-attach:usb") < names.index("domain-start")
    refused = await instance.refused(f"{USB}.Detach", "work", "sys-usb+2-1")
    assert refused == "QubesVMNotHaltedError"
    await instance.ok(f"{USB}.Unassign", "work", "sys-usb+2-1")
    await instance.ok(f"{USB}.Detach", "work", "sys-usb+2-1")


async def test_a_qube_is_not_up_without_what_it_requires(instance: Instance) -> None:
    await instance.power.kill(instance.system.named("work"))
    await assign(instance, mode="required")
    await plug(instance, STICK)
    instance.drivers["usb"].broken = True
    assert await instance.refused("admin.vm.Start", "work") == "QubesException"
    assert instance.system.named("work").halted
    assert "domain-start" not in instance.names()
    assert "domain-start-failed" in instance.names()
    instance.drivers["usb"].broken = False
    await instance.ok("admin.vm.Start", "work")


@pytest.mark.parametrize("why", ["cannot be given", "another qube has"])
async def test_why_a_qube_does_not_start(instance: Instance, why: str) -> None:
    other = await instance.qube("other")
    await plug(instance, STICK)
    if why == "another qube has":
        await instance.ok(f"{USB}.Attach", "work", "sys-usb+2-1")
    else:
        instance.drivers["usb"].gives = False
    await assign(instance, "other", mode="required")
    assert await instance.refused("admin.vm.Start", "other") == "QubesException"
    assert why in instance.told[-1].fields["reason"]
    assert other.halted


def _agent(answer: str, asked: list[bytes]) -> Callable[..., object]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read())
        writer.write(answer.encode())
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("answer", "holder"),
    [
        ("allow:other", "other"),
        ("allow:work\n", "work"),
        ("allow:dom0", None),
        ("allow:", None),
        ("work", None),
        ("deny", None),
        ("\xff" * 500, None),
    ],
)
async def test_a_person_says_who_gets_a_device(
    instance: Instance, answer: str, holder: str | None
) -> None:
    await instance.power.start(await instance.qube("other"))
    for name in ("work", "other"):
        await assign(instance, name)
    asked: list[bytes] = []
    path = instance.run / SOCKET_NAME
    server = await asyncio.start_unix_server(_agent(answer, asked), path)  # type: ignore[arg-type]
    async with server:
        await plug(instance, STICK)
    assert [one[0] for one in instance.drivers["usb"].given] == ([holder] if holder else [])
    question = json.loads(asked[0])
    assert question["targets"] == ["other", "work"]
    assert "default_target" not in question
    assert question["source"] == "sys-usb"
    assert question["argument"] == "2-1"
    assert question["device_name"] == "USB_Storage: Acme Stick"


async def test_one_target_is_the_questions_default(instance: Instance) -> None:
    work = instance.system.named("work")
    asked = json.loads(question(instance.system, STICK, [work]))
    assert asked["default_target"] == "work"
    assert asked["icons"] == {"sys-usb": "appvm-blue", "work": "appvm-blue"}


async def test_without_an_agent_the_answer_is_no(instance: Instance, tmp_path: Path) -> None:
    agent = DeviceAgent(instance.system, tmp_path)
    assert await agent(STICK, [instance.system.named("work")]) is None
