"""PCI devices as sysfs tells of them."""

from pathlib import Path

import pytest

from insula.daemon.devices.pci import PciDriver, PciError, port_of


def _device(root: Path, place: str, **files: str) -> Path:
    directory = root / "devices" / place
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(f"{text}\n")
    bus = root / "bus"
    bus.mkdir(exist_ok=True)
    (bus / directory.name).symlink_to(directory)
    return directory


CARD = {"vendor": "0x8086", "device": "0xa12f", "class": "0x0c0330"}


def test_devices_are_named_by_their_way(tmp_path: Path) -> None:
    bridge = {**CARD, "class": "0x060400", "secondary_bus_number": "2"}
    _device(tmp_path, "pci0000:00/0000:00:14.0", **CARD)
    _device(tmp_path, "pci0000:00/0000:00:1c.0", **bridge)
    _device(tmp_path, "pci0000:00/0000:00:1c.0/0000:02:00.0", **CARD)
    _device(tmp_path, "pci0001:00/0001:00:01.7", **CARD)
    found = PciDriver(tmp_path / "bus").available("dom0")
    assert [(one.port, one.data) for one in found] == [
        ("00_14.0", {"sbdf": "0000:00:14.0"}),
        ("00_1c.0", {"sbdf": "0000:00:1c.0"}),
        ("00_1c.0-00_00.0", {"sbdf": "0000:02:00.0"}),
        ("0001_00_01.7", {"sbdf": "0001:00:01.7"}),
    ]
    assert found[0].device_id == "0x8086:0xa12f::p0c0330"
    assert found[0].interfaces == "p0c0330"
    assert PciDriver(tmp_path / "bus").available("work") == []


def test_what_vanishes_or_is_no_device_is_passed_over(tmp_path: Path) -> None:
    _device(tmp_path, "pci0000:00/0000:00:14.0", vendor="0x8086")
    _device(tmp_path, "pci0000:00/0000:00:15.0", **{**CARD, "class": "nonsense!"})
    _device(tmp_path, "elsewhere", **CARD)
    assert PciDriver(tmp_path / "bus").available("dom0") == []
    assert PciDriver(tmp_path / "nothing").available("dom0") == []


def test_this_hosts_own() -> None:
    assert all(one.port and one.device_id for one in PciDriver().available("dom0"))
    assert port_of(Path("/sys/devices")) is None


async def test_none_is_claimed_to_be_given(tmp_path: Path) -> None:
    _device(tmp_path, "pci0000:00/0000:00:14.0", **CARD)
    driver = PciDriver(tmp_path / "bus")
    (card,) = driver.available("dom0")
    with pytest.raises(PciError, match="00_14"):
        await driver.attach("work", card, {})
    with pytest.raises(PciError):
        await driver.detach("work", card)
