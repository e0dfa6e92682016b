"""Whatever is asked of devices and rules, the daemon answers or refuses; it never trips."""

import logging
import random

import pytest

from insula.protocol.devices import parse_serialised
from tests.serving import Instance

CLASSES = ("block", "mic", "pci", "usb", "webcam")
NAMES = ("Available", "Assigned", "Attached", "Assign", "Unassign", "Set.assignment", "Attach")
ARGUMENTS = (
    "", "+", "++", "_", "_+_", "_+_+_", "dom0", "dom0+", "dom0++", "dom0+_", "dom0+_+_",
    "dom0+sda+", "dom0+sda+_______", "dom0+sda+a'b", "dom0+..+_", "dom0+a%s+_", "work+sda+*",
    "nobody+sda", "-+sda", "dom0+" + "a" * 5000, "dom0+sda" + "+" * 2000, "*+*+*", "uuid:x+sda",
)  # fmt: skip
PAYLOADS = (
    b"", b"required", b"auto-attach", b"mode='required'", b"mode='auto-attach' device_id='*'",
    b"mode='auto-attach' port_id='_'", b"mode=''", b"mode='auto-attach' _='x'", b"='", b"'",
    b"='='", b"mode='auto-attach' device_id='x='", b"mode='auto-attach' _permissive='='",
    b"mode='required' device_id='a\\'", b"mode='auto-attach' _frontend-dev='xvd\\'",
    b"mode='auto-attach' device_id='''''", b"mode='auto-attach' _read-only='='", b"\xff\xfe",
    b"mode='auto-attach' _x=' mode='manual'", b"a='b' " * 3000, b"mode='auto-attach'\0", b"all",
    b"mode='auto-attach' frontend_domain='' backend_domain=''", b"*" * 7, b"u08****" * 1000,
    b"action=accept", b"action=accept " * 2000, b"action=accept comment=" + b"a" * 60_000,
    b"\n" * 1000, b"action=accept dst4=" + b"1." * 1000, b"action=accept\n" * 4000,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_trips_the_daemon(
    instance: Instance, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    await instance.power.start(instance.system.named("work"))
    await instance.ok("admin.vm.Create.RemoteVM", "dom0", "", b"name=far label=red")
    methods = [f"admin.vm.device.{one}.{name}" for one in CLASSES for name in (*NAMES, "Detach")]
    methods += [f"admin.vm.device.denied.{name}" for name in ("List", "Add", "Remove")]
    methods += [f"admin.vm.firewall.{name}" for name in ("Get", "Set", "Reload")]
    chosen = random.Random(seed)
    for method in methods:
        for _ in range(12):
            argument, payload = chosen.choice(ARGUMENTS), chosen.choice(PAYLOADS)
            await instance.ask(method, chosen.choice(("work", "dom0", "far")), argument, payload)
    for name in ("work", "dom0", "far"):
        for devclass in CLASSES:
            for kind in ("Available", "Assigned", "Attached"):
                listed = await instance.ok(f"admin.vm.device.{devclass}.{kind}", name)
                for line in listed.splitlines():
                    assert parse_serialised(line.partition(" ")[2])["devclass"] == devclass
    assert [one.message for one in caplog.records if one.levelno >= logging.ERROR] == []
