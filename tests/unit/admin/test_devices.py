"""Devices over the Admin API (admin-api.md sections 3.7 and 4.8)."""

import asyncio
from uuid import uuid4

import pytest

from insula.daemon.lifecycle.devices import Devices
from insula.daemon.model.assignments import Assignment
from insula.daemon.model.errors import DeviceAlreadyAttachedError
from insula.daemon.model.qube import Qube
from insula.protocol.admin import Refusal
from insula.protocol.devices import DeviceInfo
from tests.devices import FakeDriver
from tests.serving import Instance

USB = "admin.vm.device.usb"
BLOCK = "admin.vm.device.block"
PCI = "admin.vm.device.pci"
STICK = DeviceInfo(
    devclass="usb",
    backend="dom0",
    port="2-1",
    device_id="1234:abcd:S1:u080650",
    interfaces="u080650",
    described={"product": "Stick"},
)
DISK = DeviceInfo(
    devclass="block", backend="dom0", port="sda", device_id="stick:0", interfaces="b******"
)
CARD = DeviceInfo(
    devclass="pci", backend="dom0", port="00_1f.3", device_id="0x8086:0x1::p020000",
    interfaces="p020000",
)  # fmt: skip
STICK_ARGUMENT = "dom0+2-1+1234+abcd+S1+u080650"
AUTO = b"mode='auto-attach'"


@pytest.fixture(autouse=True)
def _plugged(instance: Instance) -> None:
    for device in (STICK, DISK, CARD):
        instance.drivers[device.devclass].shown["dom0"] = [device]


def _line(mode: str, device_id: str = "1234:abcd:S1:u080650", options: str = "") -> str:
    return (
        f"dom0+2-1:{device_id} device_id='{device_id}' port_id='2-1' devclass='usb' "
        f"backend_domain='dom0' mode='{mode}' frontend_domain='work'{options}\n"
    )


async def test_classes(instance: Instance) -> None:
    assert await instance.ok("admin.deviceclass.List") == "block\nmic\npci\nusb\nwebcam\n"
    assert await instance.refused("admin.vm.device.floppy.Available") is None


async def test_what_is_available(instance: Instance) -> None:
    line = (
        "2-1:1234:abcd:S1:u080650 device_id='1234:abcd:S1:u080650' port_id='2-1' devclass='usb' "
        "backend_domain='dom0' product='Stick' interfaces='u080650'\n"
    )
    assert await instance.ok(f"{USB}.Available") == line
    assert await instance.ok(f"{USB}.Available", "dom0", "2-1") == line
    assert await instance.ok(f"{USB}.Available", "dom0", "2-2") == ""
    assert await instance.ok(f"{USB}.Available", "work") == ""
    assert await instance.ok("admin.vm.device.mic.Available") == ""


async def test_a_qube_shows_devices_while_it_runs(instance: Instance) -> None:
    device = DeviceInfo(devclass="usb", backend="work", port="1-1")
    instance.drivers["usb"].shown["work"] = [device]
    assert await instance.ok(f"{USB}.Available", "work") == ""
    await instance.power.start(instance.system.named("work"))
    assert (await instance.ok(f"{USB}.Available", "work")).startswith("1-1:0000:0000::?******")


async def test_a_device_is_assigned_and_no_more(instance: Instance) -> None:
    assert await instance.ok(f"{USB}.Assign", "work", STICK_ARGUMENT, AUTO) == ""
    assert await instance.ok(f"{USB}.Assigned", "work") == _line("auto-attach")
    assert await instance.ok(f"{USB}.Assigned", "work", "dom0+2-1") == _line("auto-attach")
    assert await instance.ok(f"{USB}.Assigned", "work", "dom0+2-2") == ""
    assert await instance.ok(f"{BLOCK}.Assigned", "work") == ""
    again = await instance.refused(f"{USB}.Assign", "work", STICK_ARGUMENT, AUTO)
    assert again == "DeviceAlreadyAssigned"
    work = instance.system.named("work")
    assert Qube.from_json(work.to_json()).assignments == work.assignments
    await instance.ok(f"{USB}.Unassign", "work", STICK_ARGUMENT)
    assert await instance.ok(f"{USB}.Assigned", "work") == ""
    gone = await instance.refused(f"{USB}.Unassign", "work", STICK_ARGUMENT)
    assert gone == "DeviceNotAssigned"
    device = "dom0:2-1:1234:abcd:S1:u080650"
    assert [(one.name, one.fields) for one in instance.told] == [
        ("device-pre-assign:usb", {"device": device, "options": "{}"}),
        ("device-assign:usb", {"device": device, "options": "{}"}),
        ("device-unassign:usb", {"device": device}),
    ]


@pytest.mark.parametrize(
    ("argument", "payload", "device_id"),
    [
        ("dom0+2-1", AUTO, "1234:abcd:S1:u080650"),
        ("dom0+2-1+_", AUTO + b" device_id='*'", "*"),
        ("dom0+2-1", AUTO + b" device_id='other'", "other"),
        ("dom0+2-2", AUTO, "*"),
        ("dom0+2-2+a+b", AUTO, "a:b"),
    ],
)
async def test_which_device_is_meant(
    instance: Instance, argument: str, payload: bytes, device_id: str
) -> None:
    await instance.ok(f"{USB}.Assign", "work", argument, payload)
    (assignment,) = instance.system.named("work").assignments
    assert assignment.device_id == device_id


@pytest.mark.parametrize(
    ("argument", "payload"),
    [
        (STICK_ARGUMENT, b""),
        (STICK_ARGUMENT, b"mode='manual'"),
        (STICK_ARGUMENT, b"mode='sometimes'"),
        (STICK_ARGUMENT, b"nonsense"),
        (STICK_ARGUMENT, AUTO + b" colour='red'"),
        (STICK_ARGUMENT, AUTO + b" port_id='2-2'"),
        (STICK_ARGUMENT, AUTO + b" device_id='other'"),
        (STICK_ARGUMENT, AUTO + b" devclass='block'"),
        (STICK_ARGUMENT, AUTO + b" backend_domain='work'"),
        (STICK_ARGUMENT, AUTO + b" frontend_domain='nobody'"),
        ("nobody+2-1+_", AUTO),
        ("", AUTO),
        ("dom0", AUTO),
        ("dom0+2/1", AUTO),
    ],
)
async def test_assignments_that_nobody_understands(
    instance: Instance, argument: str, payload: bytes
) -> None:
    assert await instance.refused(f"{USB}.Assign", "work", argument, payload) is None
    assert instance.system.named("work").assignments == ()


@pytest.mark.parametrize(
    ("method", "argument", "payload", "kind"),
    [
        (BLOCK, "dom0+sda", AUTO + b" _read-only='perhaps'", "QubesValueError"),
        (BLOCK, "dom0+sda", AUTO + b" _frontend-dev='hda'", "QubesValueError"),
        (BLOCK, "dom0+sda", AUTO + b" _devtype='floppy'", "QubesValueError"),
        (BLOCK, "dom0+sda", AUTO + b" _speed='high'", "QubesValueError"),
        (USB, STICK_ARGUMENT, AUTO + b" _read-only='yes'", "QubesValueError"),
        (USB, "dom0+_+_", AUTO + b" device_id='*'", "QubesValueError"),
        (PCI, "work+00_1f.3+_", b"mode='required'", "QubesException"),
    ],
)
async def test_assignments_that_cannot_be(
    instance: Instance, method: str, argument: str, payload: bytes, kind: str
) -> None:
    assert await instance.refused(f"{method}.Assign", "work", argument, payload) == kind
    assert instance.system.named("work").assignments == ()
    assert instance.told == []


async def test_options_are_kept(instance: Instance) -> None:
    payload = AUTO + b" _read-only='True' _frontend-dev='xvdi'"
    await instance.ok(f"{BLOCK}.Assign", "work", "dom0+sda", payload)
    listed = await instance.ok(f"{BLOCK}.Assigned", "work")
    assert listed.endswith("frontend_domain='work' _read-only='yes' _frontend-dev='xvdi'\n")
    assert instance.told[0].fields["options"] == "{'read-only': 'yes', 'frontend-dev': 'xvdi'}"


async def test_the_mode_of_an_assignment(instance: Instance) -> None:
    method = f"{USB}.Set.assignment"
    missing = await instance.refused(method, "work", STICK_ARGUMENT, b"required")
    assert missing == "QubesValueError"
    await instance.ok(f"{USB}.Assign", "work", STICK_ARGUMENT, AUTO)
    instance.told.clear()
    await instance.ok(method, "work", STICK_ARGUMENT, b"auto-attach")
    assert instance.told == []
    await instance.ok(method, "work", STICK_ARGUMENT, b"required")
    assert await instance.ok(f"{USB}.Assigned", "work") == _line("required")
    assert instance.names() == ["device-pre-assign:usb", "device-assignment-changed:usb"]
    for mode in (b"manual", b"", b"x"):
        assert await instance.refused(method, "work", STICK_ARGUMENT, mode) is None


async def test_a_device_is_attached_and_taken_away(instance: Instance) -> None:
    work, other = instance.system.named("work"), await instance.qube("other")
    refused = await instance.refused(f"{USB}.Attach", "work", STICK_ARGUMENT)
    assert refused == "QubesVMNotRunningError"
    for qube in (work, other):
        await instance.power.start(qube)
    instance.told.clear()
    await instance.ok(f"{USB}.Attach", "work", STICK_ARGUMENT)
    assert instance.drivers["usb"].given == [("work", "dom0:2-1:1234:abcd:S1:u080650", {})]
    assert await instance.ok(f"{USB}.Attached", "work") == _line("manual")
    assert await instance.ok(f"{USB}.Attached", "work", "dom0+2-1") == _line("manual")
    assert " attachment='work' " in await instance.ok(f"{USB}.Available")
    for name in ("work", "other"):
        again = await instance.refused(f"{USB}.Attach", name, STICK_ARGUMENT)
        assert again == "DeviceAlreadyAttached"
    await instance.ok(f"{USB}.Detach", "work", "dom0+2-1")
    assert instance.drivers["usb"].given == []
    gone = await instance.refused(f"{USB}.Detach", "work", "dom0+2-1")
    assert gone == "DeviceNotAssigned"
    assert [(one.name, one.fields.get("port")) for one in instance.told] == [
        ("device-pre-attach:usb", None),
        ("device-attach:usb", None),
        ("device-pre-detach:usb", "dom0:2-1"),
        ("device-detach:usb", "dom0:2-1"),
    ]


async def test_what_is_attached_is_shown_as_it_is_assigned(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    await instance.ok(f"{USB}.Assign", "work", STICK_ARGUMENT, AUTO)
    await instance.ok(f"{USB}.Attach", "work", STICK_ARGUMENT)
    assert await instance.ok(f"{USB}.Attached", "work") == _line("auto-attach")
    await instance.ok(f"{USB}.Set.assignment", "work", STICK_ARGUMENT, b"required")
    refused = await instance.refused(f"{USB}.Detach", "work", STICK_ARGUMENT)
    assert refused == "QubesVMNotHaltedError"


async def test_a_machines_end_takes_its_devices(instance: Instance) -> None:
    work = instance.system.named("work")
    await instance.power.start(work)
    await instance.ok(f"{USB}.Attach", "work", STICK_ARGUMENT)
    await instance.power.kill(work)
    assert await instance.ok(f"{USB}.Attached", "work") == ""
    assert "attachment" not in await instance.ok(f"{USB}.Available")


async def test_a_driver_that_fails_gives_nothing(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    instance.drivers["usb"].broken = True
    refused = await instance.refused(f"{USB}.Attach", "work", STICK_ARGUMENT)
    assert refused == "QubesException"
    assert await instance.ok(f"{USB}.Attached", "work") == ""


async def test_a_disk_is_attached_with_all_its_options(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    instance.told.clear()
    await instance.ok(f"{BLOCK}.Attach", "work", "dom0+sda", b"_read-only='1'")
    listed = await instance.ok(f"{BLOCK}.Attached", "work")
    assert listed == (
        "dom0+sda:stick:0 device_id='stick:0' port_id='sda' devclass='block' "
        "backend_domain='dom0' mode='manual' frontend_domain='work' _read-only='yes' "
        "_frontend-dev='xvdi'\n"
    )
    options = "{'read-only': 'yes', 'frontend-dev': 'xvdi'}"
    device = {"device": "dom0:sda:stick:0", "options": options}
    assert [(one.name, one.fields) for one in instance.told] == [
        ("device-pre-attach:block", device),
        ("device-attach:block", device),
    ]


async def test_a_disk_that_is_read_only_is_not_attached_writable(instance: Instance) -> None:
    locked = DeviceInfo(devclass="block", backend="dom0", port="sr0", data={"mode": "r"})
    instance.drivers["block"].shown["dom0"] = [locked]
    await instance.power.start(instance.system.named("work"))
    refused = await instance.refused(f"{BLOCK}.Attach", "work", "dom0+sr0", b"_read-only='no'")
    assert refused == "QubesValueError"
    assert await instance.ok(f"{BLOCK}.Attached", "work") == ""


async def test_the_backend_of_a_disk_has_to_run(instance: Instance) -> None:
    await instance.qube("disks")
    await instance.power.start(instance.system.named("work"))
    for method, kind in ((BLOCK, "QubesVMNotRunningError"), (USB, None)):
        assert await instance.refused(f"{method}.Attach", "work", "disks+sda") == kind


async def test_what_dom0_gets(instance: Instance) -> None:
    shown = DeviceInfo(devclass="block", backend="work", port="sda")
    instance.drivers["block"].shown["work"] = [shown]
    instance.drivers["usb"].shown["work"] = [DeviceInfo(devclass="usb", backend="work", port="1-1")]
    await instance.power.start(instance.system.named("work"))
    await instance.ok(f"{BLOCK}.Attach", "dom0", "work+sda")
    assert "frontend_domain='dom0'" in await instance.ok(f"{BLOCK}.Attached", "dom0")
    await instance.ok(f"{BLOCK}.Detach", "dom0", "work+sda")
    assert await instance.refused(f"{USB}.Attach", "dom0", "work+1-1") == "QubesException"
    assert await instance.refused(f"{PCI}.Attach", "dom0", "dom0+00_1f.3") == "QubesException"


async def test_a_device_is_not_given_to_its_own_backend(instance: Instance) -> None:
    instance.drivers["usb"].shown["work"] = [DeviceInfo(devclass="usb", backend="work", port="1-1")]
    await instance.power.start(instance.system.named("work"))
    assert await instance.refused(f"{USB}.Attach", "work", "work+1-1") == "QubesException"


async def test_pci_devices_are_not_attached_to_a_pvh_qube(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    assert await instance.refused(f"{PCI}.Attach", "work", "dom0+00_1f.3") == "QubesException"


async def test_a_halted_qube_comes_before_an_absent_device(instance: Instance) -> None:
    refused = await instance.refused(f"{USB}.Attach", "work", "dom0+9-9")
    assert refused == "QubesVMNotRunningError"


async def test_what_is_known_of_nothing_may_be_denied(instance: Instance) -> None:
    await instance.ok("admin.vm.device.denied.Add", "work", "", b"u08****")
    assert await instance.refused(f"{USB}.Attach", "work", STICK_ARGUMENT) is None
    assert await instance.refused(f"{USB}.Attach", "work", "dom0+9-9") is None


async def test_two_qubes_at_once_do_not_get_one_device(instance: Instance) -> None:
    await instance.qube("other")
    for name in ("work", "other"):
        await instance.power.start(instance.system.named(name))
    answers = await asyncio.gather(
        instance.ask(f"{USB}.Attach", "work", STICK_ARGUMENT),
        instance.ask(f"{USB}.Attach", "other", STICK_ARGUMENT),
    )
    (refusal,) = (answer for answer in answers if isinstance(answer, Refusal))
    assert refusal.kind == "DeviceAlreadyAttached"
    assert len(instance.drivers["usb"].given) == 1


async def test_several_qubes_have_the_microphone(instance: Instance) -> None:
    driver = FakeDriver("mic")
    driver.shown["dom0"] = [DeviceInfo(devclass="mic", backend="dom0", port="mic")]
    instance.devices = Devices(instance.world, [driver])
    await instance.qube("other")
    for name in ("work", "other"):
        await instance.power.start(instance.system.named(name))
    devices, (microphone,) = instance.devices, driver.shown["dom0"]
    for name in ("work", "other"):
        await devices.attach(instance.system.named(name), "mic", microphone.name, {})
        assert len(devices.attached("mic", instance.system.named(name))) == 1
    with pytest.raises(DeviceAlreadyAttachedError):
        await devices.attach(instance.system.named("work"), "mic", microphone.name, {})


async def test_a_paused_backend_still_shows_what_it_had(instance: Instance) -> None:
    instance.drivers["usb"].shown["work"] = [DeviceInfo(devclass="usb", backend="work", port="1-1")]
    await instance.power.start(instance.system.named("work"))
    await instance.power.pause(instance.system.named("work"))
    assert await instance.ok(f"{USB}.Available", "work") != ""


async def test_denied_devices_may_be_assigned(instance: Instance) -> None:
    await instance.ok("admin.vm.device.denied.Add", "work", "", b"u08****")
    await instance.ok(f"{USB}.Assign", "work", STICK_ARGUMENT, AUTO)


@pytest.mark.parametrize("mode", [b"auto-attach", b"required", b"ask-to-attach"])
async def test_whatever_the_mode_an_attach_is_by_hand(instance: Instance, mode: bytes) -> None:
    await instance.power.start(instance.system.named("work"))
    await instance.ok("admin.vm.device.denied.Add", "work", "", b"u08****")
    payload = b"mode='%s'" % mode
    assert await instance.refused(f"{USB}.Attach", "work", STICK_ARGUMENT, payload) is None
    await instance.ok("admin.vm.device.denied.Remove", "work", "", b"all")
    await instance.ok(f"{USB}.Attach", "work", STICK_ARGUMENT, payload)
    assert await instance.ok(f"{USB}.Attached", "work") == _line("manual")
    assert instance.system.named("work").assignments == ()


@pytest.mark.parametrize("assigned", ["dom0+2-1+_", "dom0+_+1234+abcd+S1+u080650", "_+2-1+_"])
async def test_assignments_of_any_are_named_as_they_are(instance: Instance, assigned: str) -> None:
    any_id = b" device_id='*'" if assigned.endswith("_") else b""
    await instance.ok(f"{USB}.Assign", "work", assigned, AUTO + any_id)
    again = await instance.refused(f"{USB}.Assign", "work", assigned, AUTO + any_id)
    assert again == "DeviceAlreadyAssigned"
    listed = await instance.ok(f"{USB}.Assigned", "work")
    assert "*" in listed.partition(" ")[0]
    place = "+".join(assigned.split("+")[:2])
    assert await instance.ok(f"{USB}.Assigned", "work", place) == listed
    if assigned != "dom0+2-1+_":
        gone = await instance.refused(f"{USB}.Unassign", "work", STICK_ARGUMENT)
        assert gone == "DeviceNotAssigned"
    await instance.ok(f"{USB}.Set.assignment", "work", assigned, b"ask-to-attach")
    assert "mode='ask-to-attach'" in await instance.ok(f"{USB}.Assigned", "work")
    await instance.ok(f"{USB}.Unassign", "work", assigned)
    assert await instance.ok(f"{USB}.Assigned", "work") == ""


async def test_devices_of_a_disposable_that_is_gone_are_nobodys(instance: Instance) -> None:
    await instance.disposables("mould")
    name = await instance.ok("admin.vm.CreateDisposable", "mould")
    await instance.ok("admin.vm.Start", name)
    await instance.ok(f"{USB}.Assign", "work", f"{name}+2-1+_", AUTO + b" device_id='*'")
    await instance.ok(f"{USB}.Assign", "work", STICK_ARGUMENT, AUTO)
    instance.told.clear()
    await instance.ok("admin.vm.Kill", name)
    assert await instance.ok(f"{USB}.Assigned", "work") == _line("auto-attach")
    (lost,) = (one for one in instance.told if one.name == "device-unassign:usb")
    assert (lost.subject, lost.fields) == ("work", {"device": f"{name}:2-1:*"})


async def test_a_backend_that_is_gone_is_not_any(instance: Instance) -> None:
    stale = Assignment(devclass="usb", backend=uuid4(), mode="required")
    instance.system.named("work").assignments = (stale,)
    assert await instance.refused("admin.vm.Start", "work") == "QubesException"
    assert "which is not there" in instance.told[-1].fields["reason"]
    assert "backend_domain='uuid:" in await instance.ok(f"{USB}.Assigned", "work")


async def test_a_qube_loses_what_was_assigned_with_it(instance: Instance) -> None:
    await instance.qube("other")
    await instance.ok(f"{USB}.Assign", "other", STICK_ARGUMENT, AUTO)
    await instance.ok("admin.vm.Remove", "other")
    await instance.qube("other")
    assert await instance.ok(f"{USB}.Assigned", "other") == ""


@pytest.mark.parametrize("codes", [b"u08****u08****", b"u08", b"x08****"])
async def test_what_is_no_interface_is_not_allowed_again(instance: Instance, codes: bytes) -> None:
    refused = await instance.refused("admin.vm.device.denied.Remove", "work", "", codes)
    assert refused in ("QubesValueError", "QubesPropertyValueError")


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        (b"u08****u08****", "QubesValueError"),
        (b"x08****x08****", "QubesValueError"),
        (b"u08****u08", "QubesValueError"),
        (b"x08****", "QubesPropertyValueError"),
        (b"u08***U", "QubesPropertyValueError"),
        (b"u08***\xff", None),
    ],
)
async def test_what_is_no_interface_is_not_denied(
    instance: Instance, codes: bytes, kind: str | None
) -> None:
    instance.told.clear()
    assert await instance.refused("admin.vm.device.denied.Add", "work", "x", codes) == kind
    assert await instance.ok("admin.vm.device.denied.List", "work") == ""
    assert instance.told == []


async def test_who_takes_no_argument_and_no_payload(instance: Instance) -> None:
    for name in ("Available", "Assigned", "Attached", "Unassign", "Detach"):
        assert await instance.refused(f"{USB}.{name}", "work", "", b"x") is None
    assert await instance.refused("admin.vm.device.denied.List", "work", "x") is None
    assert await instance.refused("admin.deviceclass.List", "work") is None
    assert await instance.refused("admin.deviceclass.List", "dom0", "x") is None


@pytest.mark.parametrize("argument", ["dom0+2-9", "dom0+2-1+other", "dom0+_+other"])
async def test_an_absent_device_is_not_attached(instance: Instance, argument: str) -> None:
    await instance.power.start(instance.system.named("work"))
    assert await instance.refused(f"{USB}.Attach", "work", argument) is None


async def test_denied_devices_are_not_attached(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    await instance.ok("admin.vm.device.denied.Add", "work", "", b"u08****")
    assert await instance.refused(f"{USB}.Attach", "work", STICK_ARGUMENT) is None
    await instance.ok("admin.vm.device.denied.Remove", "work", "", b"u08****")
    await instance.ok(f"{USB}.Attach", "work", STICK_ARGUMENT)


async def test_unknown_devices_are_denied_where_any_are(instance: Instance) -> None:
    instance.drivers["usb"].shown["dom0"] = [DeviceInfo(devclass="usb", backend="dom0", port="9")]
    await instance.power.start(instance.system.named("work"))
    await instance.ok("admin.vm.device.denied.Add", "work", "", b"p02****")
    assert await instance.refused(f"{USB}.Attach", "work", "dom0+9") is None


async def test_denied_interfaces(instance: Instance) -> None:
    denied = "admin.vm.device.denied"
    assert await instance.ok(f"{denied}.List", "work") == ""
    await instance.ok(f"{denied}.Add", "work", "ignored", b"u08****p02****")
    assert await instance.ok(f"{denied}.List", "work") == "p02****\nu08****"
    assert instance.names() == [
        "property-pre-set:devices_denied", "property-set:devices_denied"
    ]  # fmt: skip
    await instance.ok(f"{denied}.Add", "work", "", b"u08****")
    assert len(instance.told) == 2
    await instance.ok(f"{denied}.Remove", "work", "", b"b******u08****")
    assert await instance.ok(f"{denied}.List", "work") == "p02****"
    await instance.ok(f"{denied}.Remove", "work", "", b"all")
    assert await instance.ok(f"{denied}.List", "work") == ""
    await instance.ok(f"{denied}.Add", "dom0", "", b"*******")


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        (b"u08****u08****", "QubesValueError"),
        (b"u08", "QubesValueError"),
        (b"x08****", "QubesPropertyValueError"),
        (b"u08***g", "QubesPropertyValueError"),
        (b"\xff", None),
    ],
)
async def test_what_is_no_interface(instance: Instance, codes: bytes, kind: str | None) -> None:
    refused = await instance.refused("admin.vm.device.denied.Add", "work", "", codes)
    assert refused == kind


async def test_a_required_device_has_to_be_there(instance: Instance) -> None:
    await instance.ok(f"{USB}.Assign", "work", "dom0+7-7+_", b"mode='required' device_id='*'")
    assert await instance.refused("admin.vm.Start", "work") == "QubesException"
    assert instance.told[-1].name == "domain-start-failed"
    assert "7-7" in instance.told[-1].fields["reason"]


async def test_pci_devices_change_how_a_qube_is_virtualised(instance: Instance) -> None:
    await instance.ok(f"{PCI}.Assign", "work", "dom0+00_1f.3", b"mode='required'")
    answer = await instance.ok("admin.vm.property.Get", "work", "virt_mode")
    assert answer == "default=True type=str hvm"
    answer = await instance.ok("admin.vm.property.Get", "work", "maxmem")
    assert answer == "default=True type=int 0"
    refused = await instance.refused("admin.vm.property.Set", "work", "virt_mode", b"pvh")
    assert refused == "QubesPropertyValueError"
    await instance.ok(f"{PCI}.Unassign", "work", "dom0+00_1f.3")
    await instance.ok("admin.vm.property.Set", "work", "virt_mode", b"pvh")
    refused = await instance.refused(f"{PCI}.Assign", "work", "dom0+00_1f.3", b"mode='required'")
    assert refused == "QubesException"


async def test_a_backend_is_in_use(instance: Instance) -> None:
    await instance.qube("sys-usb")
    await instance.ok(f"{USB}.Assign", "work", "sys-usb+2-1+_", AUTO + b" device_id='*'")
    assert await instance.refused("admin.vm.Remove", "sys-usb") == "QubesVMInUseError"
    await instance.ok(f"{USB}.Unassign", "work", "sys-usb+2-1+_")
    await instance.ok("admin.vm.Remove", "sys-usb")


async def test_a_remote_qube_has_none(instance: Instance) -> None:
    await instance.ok("admin.vm.Create.RemoteVM", "dom0", "", b"name=far label=red")
    for name in ("Available", "Assigned", "Attached"):
        assert await instance.ok(f"{USB}.{name}", "far") == ""
    for name in ("Assign", "Unassign", "Attach", "Detach"):
        payload = AUTO if name == "Assign" else b""
        refused = await instance.refused(f"{USB}.{name}", "far", STICK_ARGUMENT, payload)
        assert refused == "QubesException"
    refused = await instance.refused(f"{USB}.Set.assignment", "far", STICK_ARGUMENT, b"required")
    assert refused is None


@pytest.mark.parametrize("name", ["Assigned", "Attached"])
async def test_a_port_is_named_with_its_backend(instance: Instance, name: str) -> None:
    assert await instance.refused(f"{USB}.{name}", "work", "2-1") is None


async def test_one_that_was_asked_for_is_one(instance: Instance) -> None:
    for device_id in (b"a", b"b"):
        payload = AUTO + b" device_id='%s'" % device_id
        await instance.ok(f"{USB}.Assign", "work", "dom0+2-1", payload)
    assert await instance.refused(f"{USB}.Assigned", "work", "dom0+2-1") is None
