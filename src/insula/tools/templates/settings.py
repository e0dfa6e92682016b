"""What a template's package says of it: menus, and template.conf (qvm-tools.md section 9.2)."""

from collections.abc import Iterator
from pathlib import Path

from insula.client.app import Qube
from insula.tools.command import warn

_CONFIGURATION = "template.conf"
_MENUS = {
    "vm-whitelisted-appmenus.list": "default-menu-items",
    "whitelisted-appmenus.list": "menu-items",
    "netvm-whitelisted-appmenus.list": "netvm-menu-items",
}
_SWITCHES = frozenset(
    (
        "no-monitor-layout", "pci-e820-host", "linux-stubdom", "gui", "selinux", "gui-emulated",
        "qrexec",
    )
)  # fmt: skip
_ADDRESSES = frozenset(("net.fake-ip", "net.fake-gateway", "net.fake-netmask"))
_ADDRESS_CHARACTERS = frozenset("0123456789.")
_MODES = ("pvh", "hvm", "pv")
_MOST_SETTINGS = 1000  # lines


def apply_menus(qube: Qube, directory: Path) -> None:
    """Keep the lists of programs that menus show."""
    for name, feature in _MENUS.items():
        try:
            text = (directory / name).read_text()
        except FileNotFoundError:
            continue
        qube.features[feature] = " ".join(line.strip() for line in text.splitlines() if line)


def apply_configuration(qube: Qube, directory: Path, *, allow_pv: bool) -> None:
    """Set what template.conf asks for and a package may; the rest is told and passed over."""
    try:
        text = (directory / _CONFIGURATION).read_text()
    except FileNotFoundError:
        return
    for key, value in _settings(text):
        is_address = key in _ADDRESSES and value and set(value) <= _ADDRESS_CHARACTERS
        if is_address or (key in _SWITCHES and value == "1"):
            qube.features[key] = value
        elif key == "virt-mode" and value in _MODES and (value != "pv" or allow_pv):
            qube.set("virt_mode", value)
        elif key == "kernel" and not value:
            qube.set("kernel", "")
        else:
            warn(qube.name, f"{_CONFIGURATION}: {key}={value!r} is passed over")


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines()[:_MOST_SETTINGS]:
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            yield key.strip(), value.strip()
