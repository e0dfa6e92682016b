"""Options of devices (admin-api.md sections 3.7 and 4.8, devices.md section 4)."""

import string

import pytest

from insula.daemon.devices.driver import OptionError, checked, settled
from insula.protocol.devices import DeviceInfo

DISK = DeviceInfo(devclass="block", backend="a", port="sda", data={"mode": "w"})
LOCKED = DeviceInfo(devclass="block", backend="a", port="sr0", data={"mode": "r"})
FIRST = [f"xvd{letter}" for letter in string.ascii_lowercase[8:]]
SECOND = [f"xvd{one}{two}" for one in string.ascii_lowercase for two in string.ascii_lowercase]
LAST = [f"xvd{letter}" for letter in string.ascii_lowercase[:8]]


@pytest.mark.parametrize("value", ["1", "yes", "True", "ON"])
def test_yes(value: str) -> None:
    assert checked("block", {"read-only": value}) == {"read-only": "yes"}


@pytest.mark.parametrize("value", ["0", "no", "False", "off"])
def test_no(value: str) -> None:
    assert checked("block", {"read-only": value}) == {"read-only": "no"}


@pytest.mark.parametrize(
    ("devclass", "options"),
    [
        ("block", {"read-only": "maybe"}),
        ("block", {"read-only": ""}),
        ("block", {"frontend-dev": "hda"}),
        ("block", {"frontend-dev": ""}),
        ("block", {"devtype": "floppy"}),
        ("block", {"permissive": "yes"}),
        ("pci", {"read-only": "yes"}),
        ("usb", {"permissive": "yes"}),
        ("mic", {"x": ""}),
        ("block", {"frontend-dev": "xvd="}),
        ("pci", {"permissive": "\\"}),
    ],
)
def test_what_is_no_option(devclass: str, options: dict[str, str]) -> None:
    with pytest.raises(OptionError):
        checked(devclass, options)


def test_options_that_there_are() -> None:
    for devclass, options in (
        ("block", {"frontend-dev": "sda", "devtype": "cdrom"}),
        ("block", {"frontend-dev": "xvdz", "devtype": "disk"}),
        ("pci", {"no-strict-reset": "yes", "permissive": "True"}),
    ):
        assert checked(devclass, options) == options


@pytest.mark.parametrize(
    ("taken", "options", "node"),
    [
        ([], {}, "xvdi"),
        (["xvdi", "xvdk"], {}, "xvdj"),
        (FIRST, {}, "xvdaa"),
        ([*FIRST, *SECOND], {}, "xvda"),
        ([*FIRST, *SECOND, *LAST[:7]], {}, "xvdh"),
        ([], {"devtype": "cdrom"}, "xvdd"),
        (["xvdd"], {"devtype": "cdrom"}, "xvdi"),
        ([], {"frontend-dev": "sdb"}, "sdb"),
    ],
)
def test_which_node_a_disk_gets(taken: list[str], options: dict[str, str], node: str) -> None:
    assert settled(DISK, options, taken)["frontend-dev"] == node


def test_a_disk_is_as_writable_as_it_is() -> None:
    assert settled(DISK, {}, [])["read-only"] == "no"
    assert settled(DISK, {"read-only": "yes"}, [])["read-only"] == "yes"
    assert settled(LOCKED, {}, [])["read-only"] == "yes"
    with pytest.raises(OptionError, match="read-only"):
        settled(LOCKED, {"read-only": "no"}, [])


def test_nodes_are_each_of_one_disk() -> None:
    with pytest.raises(OptionError, match="xvdi"):
        settled(DISK, {"frontend-dev": "xvdi"}, ["xvdi"])
    with pytest.raises(OptionError):
        settled(DISK, {}, [*FIRST, *SECOND, *LAST])


def test_other_classes_have_what_was_given() -> None:
    card = DeviceInfo(devclass="pci", backend="dom0", port="00_1f.3")
    assert settled(card, {"permissive": "yes"}, []) == {"permissive": "yes"}
