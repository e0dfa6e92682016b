"""qvm-device and its kin: what is listed, and what is asked of the daemon."""

import json
import os
import pty
import subprocess
import sys

import pytest

from insula.tools import qvm_device
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import FakeDaemon, FakeQube, RefusedError

STICK = "1234:abcd:S1:u080650"
KEY = "20a0:42b2::u0b0000"


def shown(port: str, device_id: str, devclass: str, interfaces: str, more: str = "") -> str:
    items = f"device_id='{device_id}' port_id='{port}' devclass='{devclass}' "
    return f"{port}:{device_id} {items}backend_domain='dusk-usb' interfaces='{interfaces}'{more}"


def held(port: str, device_id: str, mode: str, more: str = "") -> str:
    head = f"dusk-usb+{port}:{device_id} device_id='{device_id}' port_id='{port}'"
    return f"{head} devclass='usb' backend_domain='dusk-usb' mode='{mode}'{more}"


@pytest.fixture(autouse=True)
def _qubes(daemon: FakeDaemon) -> None:
    usb, block = ("usb", "Available"), ("block", "Available")
    stick = shown("2-3", STICK, "usb", "u080650", " vendor='Acme' product='Pocket Disk' _x='y'")
    daemon.add(
        FakeQube(
            "dusk-usb",
            state="Running",
            listed_devices={
                usb: [stick, shown("2-4", KEY, "usb", "u0b0000u030101")],
                block: [shown("sda", ":None", "block", "b******", " name='Disk'")],
            },
        )
    )
    daemon.add(
        FakeQube(
            "orchid",
            state="Running",
            listed_devices={
                ("usb", "Attached"): [held("2-3", STICK, "manual", " _a='b' _c='d'")],
                ("usb", "Assigned"): [
                    held("2-3", STICK, "auto-attach"), held("*", KEY, "ask-to-attach"),
                    held("2-3", "*", "required", " _read-only='yes'"),
                ],
            },
        )
    )  # fmt: skip
    daemon.add(FakeQube("work"))
    sbdf = " product='Card' vendor='Acme' _sbdf='0000:00:14.0'"
    line = shown("00_14.0", "0x8086:0xa12f::p0c0330", "pci", "p0c0330", sbdf)
    daemon.qubes["dom0"].listed_devices["pci", "Available"] = [line.replace("dusk-usb", "dom0")]


@pytest.mark.parametrize("words", [[], ["list"], ["ls"], ["l", "orchid"], ["dusk-usb"], ["--all"]])
def test_devices_are_listed_with_who_has_them(run: Run, words: list[str]) -> None:
    done = run(qvm_device.usb, *words)
    assert (done.code, done.err) == (0, "")
    stick = "dusk-usb:2-3  USB_Storage: Acme Pocket Disk"
    used = "orchid (attached: a=b, c=d)"
    key = "dusk-usb:2-4  Smart_Card_Readers: unknown vendor unknown usb device  \n"
    if "orchid" in words:
        assert done.out == f"{stick}  {used}\n"
    else:
        assert done.out == f"{stick:<67}  {used}\n{key}"


def test_assignments_are_listed_too(run: Run) -> None:
    lines = run(qvm_device.main, "usb", "list", "-s", "orchid").out.splitlines()
    assert [[cell.strip() for cell in line.split("  ") if cell] for line in lines] == [
        ["dusk-usb:*", KEY, "*orchid (ask-to-attach)"],
        ["dusk-usb:2-3", "USB_Storage: Acme Pocket Disk", "orchid (attached: a=b, c=d)"],
        ["dusk-usb:2-3", STICK, "*orchid (auto-attach)"],
        ["dusk-usb:2-3", "any device", "*orchid (required: read-only=yes)"],
    ]


def test_addresses_of_pci_devices(run: Run) -> None:
    done = run(qvm_device.pci, "list", "--with-sbdf")
    assert done.out == "dom0:00_14.0  0000:00:14.0  PCI_USB: Acme Card  \n"
    assert run(qvm_device.pci).out == "dom0:00_14.0  PCI_USB: Acme Card  \n"
    assert run(qvm_device.block, "--resolve-paths", "list").code == 2
    (found,) = json.loads(run(qvm_device.pci, "list", "--json", "--resolve-paths").out)
    assert found["sbdf"] == "0000:00:14.0"


@pytest.mark.parametrize("name", ["00_14.0", "00:14.0", "0000:00:14.0"])
def test_pci_devices_may_be_named_by_their_addresses(
    run: Run, daemon: FakeDaemon, name: str
) -> None:
    assert run(qvm_device.pci, "assign", "-r", "work", f"dom0:{name}").code == 0
    ((_, argument, _),) = daemon.asked("admin.vm.device.pci.Assign")
    assert argument == "dom0+00_14.0+0x8086+0xa12f++p0c0330"


def test_an_address_without_a_device_is_refused(run: Run) -> None:
    done = run(qvm_device.pci, "assign", "-r", "work", "dom0:0001:00:14.0")
    assert (done.code, done.out) == (1, "")
    assert "0001:00:14.0" in done.err


def test_there_is_a_heading_on_a_terminal() -> None:
    controller, terminal = pty.openpty()
    program = "from insula.tools.qvm_device import block; raise SystemExit(block())"
    subprocess.run([sys.executable, "-c", program], stdout=terminal, check=True, timeout=60)
    os.close(terminal)
    first, *_ = os.read(controller, 4096).decode().splitlines()
    os.close(controller)
    assert first.split("  ")[0] == "BACKEND:DEVID"
    assert first.endswith("USED BY")


def test_no_devices_are_nothing(run: Run) -> None:
    done = run(qvm_device.main, "mic", "list")
    assert (done.code, done.out) == (0, "")


def test_a_device_is_shown(run: Run) -> None:
    expected = f"USB_Storage: Acme Pocket Disk\ndevice ID: {STICK}\nx: y\n"
    for name in ("dusk-usb:2-3", f"dusk-usb:2-3:{STICK}", "dusk-usb:2-3:*"):
        assert run(qvm_device.usb, "info", name).out == expected
    assert run(qvm_device.usb, "i").out.startswith(expected)
    for name, code in (
        ("dusk-usb:9", 1),
        ("none:2-3", 1),
        ("dusk-usb:2-3:other", 1),
        ("dusk-usb", 2),
    ):
        assert run(qvm_device.usb, "info", name).code == code


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], ""), (["--ro"], " _read-only='yes'"), (["-o", "ro=no"], " _read-only='no'"),
        (["--option", "devtype=cdrom", "-o", "ro=TRUE"], " _devtype='cdrom' _read-only='yes'"),
        (["-o", "read-only=no", "--ro"], " _read-only='yes'"),
    ],
)  # fmt: skip
def test_a_device_is_attached(run: Run, daemon: FakeDaemon, words: list[str], options: str) -> None:
    for action in ("attach", "at", "a"):
        daemon.requests.clear()
        assert run(qvm_device.block, action, *words, "orchid", "dusk-usb:sda").code == 0
        assert daemon.asked("admin.vm.device.block.Attach") == [
            (
                "orchid",
                "dusk-usb+sda++None",
                "device_id=':None' port_id='sda' devclass='block' backend_domain='dusk-usb' "
                f"mode='manual' frontend_domain='orchid'{options}".encode(),
            )
        ]


def test_attaching_can_be_kept(run: Run, daemon: FakeDaemon) -> None:
    refusal = RefusedError("QubesVMNotRunningError", "orchid does not run")
    daemon.refusals["admin.vm.device.block.Attach", "orchid"] = refusal
    done = run(qvm_device.block, "attach", "-p", "orchid", "dusk-usb:sda")
    assert (done.code, done.err) == (0, "orchid: orchid does not run\n")
    (asked,) = daemon.asked("admin.vm.device.block.Assign")
    assert b"mode='required'" in asked[2]
    done = run(qvm_device.block, "attach", "orchid", "dusk-usb:sda")
    assert (done.code, done.err) == (1, "Error: orchid does not run\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["block", "attach", "orchid", "dusk-usb:sdb"], 1),
        (["block", "attach", "orchid", "none:sda"], 1),
        (["block", "attach", "orchid", "dusk-usb:sda:other"], 1),
        (["pci", "attach", "orchid", "dom0:00_14.0"], 1),
        (["block", "attach", "none", "dusk-usb:sda"], 2),
        (["block", "attach", "orchid", "dusk-usb"], 2),
        (["block", "attach", "orchid", ":sda"], 2),
        (["block", "attach", "orchid", "dusk-usb:s/a"], 2),
        (["block", "attach", "-o", "x", "orchid", "dusk-usb:sda"], 2),
        (["block", "attach", "-o", "ro=maybe", "orchid", "dusk-usb:sda"], 2),
        (["block", "attach", "--persist", "orchid", "dusk-usb:sda"], 2),
        (["tape", "list"], 2), ([], 2), (["block", "list", "none"], 2),
    ],
)  # fmt: skip
def test_what_cannot_be_attached(run: Run, daemon: FakeDaemon, words: list[str], code: int) -> None:
    done = run(qvm_device.main, *words)
    assert (done.code, done.err.startswith("Error: ")) == (code, code == 1)
    assert not daemon.asked("admin.vm.device.block.Attach")


ARGUMENT = "dusk-usb+2-3+1234+abcd+S1+u080650"


@pytest.mark.parametrize(
    "words",
    [[], ["dusk-usb:2-3"], ["dusk-usb:*"], [f"dusk-usb:*:{STICK}"], [f"dusk-usb:2-3:{STICK}"]],
)
def test_devices_are_detached(run: Run, daemon: FakeDaemon, words: list[str]) -> None:
    assert run(qvm_device.usb, "detach", "orchid", *words).code == 0
    assert daemon.asked("admin.vm.device.usb.Detach") == [("orchid", ARGUMENT, b"")]


def test_what_is_not_attached_cannot_be_detached(run: Run, daemon: FakeDaemon) -> None:
    for name in ("dusk-usb:2-4", "none:2-3"):
        done = run(qvm_device.usb, "d", "orchid", name)
        assert (done.code, done.err.startswith("Error: ")) == (1, True)
    assert run(qvm_device.usb, "dt", "work").code == 0
    assert not daemon.asked("admin.vm.device.usb.Detach")


@pytest.mark.parametrize(
    ("words", "argument", "mode"),
    [
        (["dusk-usb:2-3"], ARGUMENT, "auto-attach"),
        (["--ask", "dusk-usb:2-3"], ARGUMENT, "ask-to-attach"),
        (["--port", "dusk-usb:2-3"], "dusk-usb+2-3+_", "auto-attach"),
        (["--only-port", "dusk-usb:9"], "dusk-usb+9+_", "auto-attach"),
        (["--device", "dusk-usb:2-3"], "dusk-usb+_+1234+abcd+S1+u080650", "auto-attach"),
        (["--ask", "dusk-usb:9:1:2::u030101"], "dusk-usb+9+1+2++u030101", "ask-to-attach"),
        (["dusk-usb:2-3:*"], "dusk-usb+2-3+_", "auto-attach"),
    ],
)  # fmt: skip
def test_devices_are_assigned(
    run: Run, daemon: FakeDaemon, words: list[str], argument: str, mode: str
) -> None:
    done = run(qvm_device.usb, "assign", "work", *words)
    assert (done.code, done.err) == (0, "")
    ((qube, asked, payload),) = daemon.asked("admin.vm.device.usb.Assign")
    assert (qube, asked, f"mode='{mode}'".encode() in payload) == ("work", argument, True)


@pytest.mark.parametrize(
    ("devclass", "words", "code"),
    [
        ("usb", ["-r", "work", "dusk-usb:2-3"], 2), ("usb", ["work", "dusk-usb:9"], 1),
        ("pci", ["work", "dom0:00_14.0"], 2), ("pci", ["-r", "work", "dom0:00_14.0"], 0),
        ("block", ["--required", "work", "dusk-usb:sda"], 0), ("usb", ["work", "none:2-3"], 1),
        ("usb", ["--port", "--device", "work", "dusk-usb:2-3"], 2),
    ],
)  # fmt: skip
def test_what_can_be_assigned(
    run: Run, daemon: FakeDaemon, devclass: str, words: list[str], code: int
) -> None:
    assert run(qvm_device.main, devclass, "assign", *words).code == code
    assert bool(daemon.asked(f"admin.vm.device.{devclass}.Assign")) == (code == 0)


def test_hints_and_warnings(run: Run, daemon: FakeDaemon) -> None:
    daemon.qubes["orchid"].denied = "u03****\nu0b****"
    done = run(qvm_device.usb, "assign", "orchid", "dusk-usb:2-4")
    assert done.err.splitlines() == [
        "qvm-usb: warning: orchid denies devices such as this one",
        "qvm-usb: orchid runs; to attach it now, too:",
        f"\tqvm-usb attach orchid dusk-usb:2-4:{KEY}",
    ]
    assert run(qvm_device.usb, "-q", "assign", "orchid", "dusk-usb:2-4").err == ""
    done = run(qvm_device.usb, "unassign", "orchid", f"dusk-usb:2-3:{STICK}")
    assert f"\n\tqvm-usb detach orchid dusk-usb:2-3:{STICK}" in done.err


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], [ARGUMENT, "dusk-usb+_+20a0+42b2++u0b0000", "dusk-usb+2-3+_"]),
        ([f"dusk-usb:2-3:{STICK}"], [ARGUMENT]),
        (["--port", "dusk-usb:2-3"], ["dusk-usb+2-3+_"]),
        (["--device", "dusk-usb:2-4"], ["dusk-usb+_+20a0+42b2++u0b0000"]),
        (["dusk-usb:2-3"], [ARGUMENT]),
    ],
)
def test_devices_are_unassigned(
    run: Run, daemon: FakeDaemon, words: list[str], arguments: list[str]
) -> None:
    for action in ("unassign", "u"):
        daemon.requests.clear()
        assert run(qvm_device.usb, action, "orchid", *words).code == 0
        asked = daemon.asked("admin.vm.device.usb.Unassign")
        assert [argument for _, argument, _ in asked] == arguments
    assert run(qvm_device.usb, "unassign", "orchid", "dusk-usb:7").code == 1


@pytest.mark.parametrize("words", [["--list-device-classes"], ["x", "--list-device-classes", "y"]])
def test_classes_are_listed_wherever_it_is_asked_for(run: Run, words: list[str]) -> None:
    assert run(qvm_device.main, *words).out == "block\nmic\npci\nusb\n"
    assert run(qvm_device.usb, *words).out == "block\nmic\npci\nusb\n"


def test_the_class_can_be_in_the_commands_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/qvm-usb", "list", "orchid"])
    assert run(lambda _words: qvm_device.main()).out.startswith("dusk-usb:2-3  ")
