"""Devices that are shown as they are reported (devices.md sections 4, 6 and 7)."""

from pathlib import Path

import pytest

from insula.daemon.devices.host_block import host_disks
from insula.daemon.devices.shown import BlockDriver, MicDriver, NotGivenError, UsbDriver

REPORTED = {
    "/qubes-usb-devices/1-1/desc": "1234:abcd A B C",
    "/qubes-block-devices/sda/desc": "disk",
}


def _disk(sys: Path, name: str, **files: str) -> Path:
    place = sys / "devices" / name
    for file, text in {"size": "8", "ro": "0", "dev": f"8:{name[-1]}", **files}.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(f"{text}\n")
    entries = sys / "class" / "block"
    entries.mkdir(parents=True, exist_ok=True)
    (entries / place.name).symlink_to(place)
    return place


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "mountinfo").write_text(
        "1 2 8:9 / / rw - ext4 /dev/sdz9 rw\n3 2 0:40 / /b rw - btrfs /dev/sdy5 rw\n"
    )
    (tmp_path / "proc" / "swaps").write_text("Filename Type\n/dev/sdx1 partition 1 0 -2\n")
    return tmp_path / "proc"


def test_disks_of_the_host_and_their_parts(tmp_path: Path, proc: Path) -> None:
    _disk(tmp_path, "sda", **{"device/model": "Acme Disk="})
    _disk(tmp_path, "sda/sda1", ro="1", partition="1")
    _disk(tmp_path, "loop0", **{"loop/backing_file": "/tmp/image"})
    assert [one.line() for one in host_disks(tmp_path, proc)] == [
        "loop0::0 device_id=':0' port_id='loop0' devclass='block' backend_domain='dom0' "
        "serial='/tmp/image' interfaces='b******' _mode='w' _size='4096'",
        "sda::None device_id=':None' port_id='sda' devclass='block' backend_domain='dom0' "
        "serial='Acme_Disk_' interfaces='b******' _mode='w' _size='4096'",
        "sda1::None:1 device_id=':None:1' port_id='sda1' devclass='block' backend_domain='dom0' "
        "serial='Acme_Disk_' interfaces='b******' parent_port_id='sda' parent_devclass='block' "
        "_mode='r' _size='4096'",
    ]


def test_what_the_host_uses_is_not_shown(tmp_path: Path, proc: Path) -> None:
    _disk(tmp_path, "sdz")
    _disk(tmp_path, "sdz/sdz1", partition="1")
    _disk(tmp_path, "sdz/sdz9", partition="1")
    _disk(tmp_path, "sdy5")
    _disk(tmp_path, "sdx1")
    (_disk(tmp_path, "sdw") / "holders" / "dm-0").mkdir(parents=True)
    assert [one.port for one in host_disks(tmp_path, proc)] == ["sdz1"]


def test_what_holds_no_data_or_none_of_its_own_is_not_shown(tmp_path: Path, proc: Path) -> None:
    for name in ("zram0", "ram0", "sr0", "fd0", "dm-0"):
        _disk(tmp_path, name)
    _disk(tmp_path, "loop1", size="0")
    _disk(tmp_path, "UPPER")
    assert host_disks(tmp_path, proc) == []
    assert host_disks(tmp_path / "nothing", proc) == []


def test_of_a_whole_disk_in_use_no_part_is_shown(tmp_path: Path, proc: Path) -> None:
    _disk(tmp_path, "sdz", dev="8:9")
    _disk(tmp_path, "sdz/sdz1", partition="1")
    assert host_disks(tmp_path, proc) == []


def test_this_hosts_own_can_be_looked_at() -> None:
    assert all(one.device_id for one in BlockDriver(lambda _name: {}).available("dom0"))


def test_each_class_shows_its_own() -> None:
    written = {"work": REPORTED}
    usb, block = UsbDriver(written.__getitem__), BlockDriver(written.__getitem__)
    assert [one.port for one in usb.available("work")] == ["1-1"]
    assert [one.port for one in block.available("work")] == ["sda"]
    assert usb.available("dom0") == []
    assert MicDriver().available("work") == []


async def test_none_is_claimed_to_be_given() -> None:
    (microphone,) = MicDriver().available("dom0")
    assert microphone.name.argument() == "dom0+mic+dom0+mic++m000000"
    driver = MicDriver()
    assert not driver.gives
    with pytest.raises(NotGivenError, match="audio"):
        await driver.attach("work", microphone, {})
    with pytest.raises(NotGivenError):
        await driver.detach("work", microphone)
