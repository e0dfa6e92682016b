"""What PCI devices are called."""

from pathlib import Path

import pytest

from insula.daemon.devices.pci import PciDriver
from insula.daemon.devices.pci_names import names

LIST = """# a comment
1af3  Another
\t1042  Not this
1af4  Red Hat, Inc.
\t1041  Virtio network device
\t\t1af4 1042  A subsystem
# another
\t1042  Caf\u00e9 'block' [x=y] \\
8086  Intel Corporation
\t1043  Not of the former
C 01  Mass storage controller
"""


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, ...]:
    (tmp_path / "pci.ids").write_text(LIST)
    return tmp_path / "nothing", tmp_path / "pci.ids"


@pytest.mark.parametrize(
    ("vendor", "product", "found"),
    [
        ("0x1af4", "0x1041", {"vendor": "Red Hat, Inc.", "product": "Virtio network device"}),
        ("0x1af4", "0x1042", {"vendor": "Red Hat, Inc.", "product": "Caf_ 'block' [x_y] _"}),
        ("0x1af4", "0x1043", {"vendor": "Red Hat, Inc."}),
        ("0x8086", "0x1041", {"vendor": "Intel Corporation"}),
        ("0x0001", "0x1041", {}),
    ],
)
def test_names(lists: tuple[Path, ...], vendor: str, product: str, found: dict[str, str]) -> None:
    assert names(vendor, product, lists) == found


def test_without_a_list_nothing_has_a_name(tmp_path: Path) -> None:
    assert names("0x1af4", "0x1041", (tmp_path / "nothing",)) == {}


def test_devices_are_shown_with_their_names(lists: tuple[Path, ...], tmp_path: Path) -> None:
    place = tmp_path / "pci0000:00" / "0000:00:02.0"
    place.mkdir(parents=True)
    for file, text in {"vendor": "0x1af4", "device": "0x1041", "class": "0x020000"}.items():
        (place / file).write_text(f"{text}\n")
    (card,) = PciDriver(place.parent, lists).available("dom0")
    assert " vendor='Red Hat, Inc.' product='Virtio network device' " in card.line()
