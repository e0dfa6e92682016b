"""Devices as qubes report them (devices.md sections 4 and 7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.devices import UNKNOWN_ID, check_device_id, parse_argument, parse_serialised
from insula.protocol.reported import MAX_DEVICES, block_devices, usb_devices

USB = "/qubes-usb-devices/4-4_1"
DISK = "/qubes-block-devices/sda"
REPORTED = {
    "/qubes-usb-devices": "",
    f"{USB}/desc": r"090c:1000 Acme\x20Inc Pocket\x20Disk 0376",
    f"{USB}/usb-ver": "2",
    f"{USB}/interfaces": ":080650:",
    "/qubes-block-devices": "",
    f"{DISK}/desc": "Pocket_Disk (MY STICK)",
    f"{DISK}/size": "1024",
    f"{DISK}/mode": "w",
    f"{DISK}/parent": "4-4.1:1.0",
    f"{DISK}1/desc": "Pocket_Disk ()",
    f"{DISK}1/size": "512",
    f"{DISK}1/mode": "r",
    f"{DISK}1/parent": "sda",
}


def test_usb_devices() -> None:
    (stick,) = usb_devices("sys-usb", REPORTED)
    assert stick.line() == (
        "4-4.1:090c:1000:0376:u080650 device_id='090c:1000:0376:u080650' port_id='4-4.1' "
        "devclass='usb' backend_domain='sys-usb' vendor='Acme Inc' product='Pocket Disk' "
        "serial='0376' interfaces='u080650'"
    )


def test_block_devices_are_parts_of_others() -> None:
    disk, part = block_devices("sys-usb", REPORTED)
    assert disk.line() == (
        "sda:090c:1000:0376:u080650:1.0 device_id='090c:1000:0376:u080650:1.0' port_id='sda' "
        "devclass='block' backend_domain='sys-usb' serial='Pocket_Disk' name='MY STICK' "
        "interfaces='b******' parent_port_id='4-4.1' parent_devclass='usb' _mode='w' _size='1024'"
    )
    assert str(part.name) == "sys-usb:sda1:090c:1000:0376:u080650:1.0:1"
    assert part.parent == ("block", "sda")
    assert part.described == {"serial": "Pocket_Disk"}


@pytest.mark.parametrize(
    ("name", "device_id"), [("loop0", ":0"), ("dm-3", ":3"), ("xyz", ":None"), ("sdb12", ":12")]
)
def test_block_devices_without_a_parent(name: str, device_id: str) -> None:
    (device,) = block_devices("work", {f"/qubes-block-devices/{name}/desc": "file"})
    assert device.device_id == device_id
    assert device.data == {"mode": "r", "size": "0"}


@pytest.mark.parametrize("name", ["SDA", "a_b", "sda.1", "aaaaaaaaaaaaa", "", "..", "a b"])
def test_block_devices_that_are_none(name: str) -> None:
    assert block_devices("work", {f"/qubes-block-devices/{name}/desc": "x"}) == []


@pytest.mark.parametrize("name", ["1", "usb1", "1-", "1-1.2", "1-1_", "1-1:1.0"])
def test_usb_devices_that_are_none(name: str) -> None:
    assert usb_devices("work", {f"/qubes-usb-devices/{name}/desc": "1234:abcd A B C"}) == []


@pytest.mark.parametrize("text", ["", "three words only", "1234:abcd A B C D", "12:ab A B C"])
def test_a_description_that_is_none_is_a_name(text: str) -> None:
    (device,) = usb_devices("work", {"/qubes-usb-devices/1-1/desc": text})
    assert device.device_id == UNKNOWN_ID
    assert device.described == ({"name": text} if text else None)


def test_parents_in_a_circle_have_an_end() -> None:
    circle = {
        f"/qubes-block-devices/{name}/{key}": value
        for name, parent in (("sda", "sdb"), ("sdb", "sda"))
        for key, value in (("desc", "x"), ("parent", parent))
    }
    assert len(block_devices("work", circle)) == 2


def test_a_qube_has_so_many_and_no_more() -> None:
    many = {f"/qubes-usb-devices/1-{number}/desc": "x" for number in range(2 * MAX_DEVICES)}
    assert len(usb_devices("work", many)) == MAX_DEVICES


def test_a_serial_is_not_taken_for_the_unknown_interface() -> None:
    reported = {"/qubes-usb-devices/1-1/desc": f"1234:abcd A B {'_' * 40}"}
    (device,) = usb_devices("work", reported)
    assert parse_argument(device.name.argument()) == device.name


HOSTILE = st.text(max_size=60) | st.sampled_from(
    (r"1234:abcd x' interfaces='m000000 =' \x27", r"1234:abcd a= b\ c='", "x=", "' _sbdf='1", "\\")
)


@given(desc=HOSTILE, interfaces=HOSTILE, size=HOSTILE, parent=HOSTILE | st.just("1-1:1.0"))
def test_whatever_is_reported_can_be_listed(
    desc: str, interfaces: str, size: str, parent: str
) -> None:
    reported = {
        "/qubes-usb-devices/1-1/desc": desc,
        "/qubes-usb-devices/1-1/interfaces": interfaces,
        "/qubes-block-devices/sda/desc": desc,
        "/qubes-block-devices/sda/size": size,
        "/qubes-block-devices/sda/parent": parent,
    }
    for device in (*usb_devices("work", reported), *block_devices("work", reported)):
        assert check_device_id(device.device_id)
        assert parse_argument(device.name.argument()) == device.name
        items = parse_serialised(device.line().partition(" ")[2])
        assert items["devclass"] == device.devclass
        assert items["interfaces"] == device.interfaces
        for key, value in (device.described or {}).items():
            assert items[key] == value
