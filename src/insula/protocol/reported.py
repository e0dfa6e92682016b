"""Devices that a qube reports of itself in its QubesDB (devices.md sections 4 and 7).

A qube can claim whatever it likes: names, labels and serials become characters of a fixed alphabet.
"""

import re
from collections.abc import Mapping

from insula.protocol.devices import UNKNOWN_INTERFACE, DeviceInfo, interfaces_of

BLOCK_PATH, USB_PATH = "/qubes-block-devices", "/qubes-usb-devices"
MAX_DEVICES = 256  # of one class, that are looked at of one qube
_MAX_TEXT = 128  # characters
_MAX_PARENTS = 3
_BLOCK_NAME = re.compile(r"[a-z0-9-]{1,12}", re.ASCII)
_USB_NAME = re.compile(r"[0-9]{1,4}-[0-9]{1,4}(_[0-9]{1,4}){0,8}", re.ASCII)
_USB_PARENT = re.compile(r"([0-9]{1,4}-[0-9]{1,4}(?:\.[0-9]{1,4}){0,8}):([0-9.]{1,9})", re.ASCII)
_IDS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})", re.ASCII)
_USB_INTERFACE = re.compile(r"[0-9a-f]{6}", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,19}", re.ASCII)
_ENCODED = re.compile(r"\\x([0-9a-fA-F]{2})", re.ASCII)
# What a list of devices is written with would be told apart from these with difficulty.
_NOT_IN_TEXT = re.compile(r"[^0-9A-Za-z()+,\-.:_/ ]", re.ASCII)
_NOT_IN_ID = re.compile(r"[^0-9A-Za-z._-]", re.ASCII)
_UNDERSCORES = re.compile(r"_{7,}", re.ASCII)
_LAST_DIGITS = re.compile(r"[0-9]+$", re.ASCII)


def block_devices(backend: str, untrusted: Mapping[str, str]) -> list[DeviceInfo]:
    """Block devices by what a qube wrote below BLOCK_PATH, whole keys and values."""
    entries = _entries(untrusted, BLOCK_PATH, _BLOCK_NAME)
    usb = {device.port: device.device_id for device in usb_devices(backend, untrusted)}
    return [_block(backend, name, entries, usb) for name in entries]


def usb_devices(backend: str, untrusted: Mapping[str, str]) -> list[DeviceInfo]:
    """USB devices by what a qube wrote below USB_PATH, whole keys and values."""
    entries = _entries(untrusted, USB_PATH, _USB_NAME)
    return [_usb(backend, name.replace("_", "."), entry) for name, entry in entries.items()]


def _entries(
    untrusted: Mapping[str, str], path: str, known: re.Pattern[str]
) -> dict[str, dict[str, str]]:
    """Keys and values of each device, by its name."""
    found: dict[str, dict[str, str]] = {}
    for key in sorted(key for key in untrusted if key.startswith(f"{path}/")):
        name, slash, item = key.removeprefix(f"{path}/").partition("/")
        if not slash or known.fullmatch(name) is None:
            continue
        if name not in found and len(found) == MAX_DEVICES:
            break
        found.setdefault(name, {})[item] = untrusted[key]
    return {name: entry for name, entry in found.items() if "desc" in entry}


def _block(
    backend: str, name: str, entries: Mapping[str, Mapping[str, str]], usb: Mapping[str, str]
) -> DeviceInfo:
    entry = entries[name]
    model, _, label = _text(entry["desc"]).partition(" ")
    if label.startswith("(") and label.endswith(")"):
        label = label[1:-1]
    described = {"serial": model, "name": label}
    size = entry.get("size", "")
    return DeviceInfo(
        devclass="block",
        backend=backend,
        port=name,
        device_id=_block_id(name, entries, usb, _MAX_PARENTS),
        interfaces="b******",
        described={key: value for key, value in described.items() if value},
        parent=_parent(entry, entries),
        data={
            "mode": "w" if entry.get("mode") == "w" else "r",
            "size": size if _SIZE.fullmatch(size) else "0",
        },
    )


def _block_id(
    name: str,
    entries: Mapping[str, Mapping[str, str]],
    usb: Mapping[str, str],
    parents: int,
) -> str:
    """The id of a block device: that of what it is a part of, and which part."""
    entry = entries[name]
    digits = _LAST_DIGITS.search(name)
    part = digits[0] if digits else "None"
    above = ""
    match _parent(entry, entries):
        case ("usb", port):
            above = usb.get(port, "")
            part = entry["parent"].partition(":")[2]
        case ("block", disk) if parents:
            above = _block_id(disk, entries, usb, parents - 1)
    return f"{above}:{part}"


def _parent(
    entry: Mapping[str, str], entries: Mapping[str, Mapping[str, str]]
) -> tuple[str, str] | None:
    """Class and port of what a block device is a part of."""
    untrusted = entry.get("parent", "")
    if found := _USB_PARENT.fullmatch(untrusted):
        return "usb", found[1]
    return ("block", untrusted) if untrusted in entries else None


def _usb(backend: str, port: str, entry: Mapping[str, str]) -> DeviceInfo:
    fields = entry["desc"].split(" ")
    ids = _IDS.fullmatch(fields[0]) if len(fields) == 4 else None
    if ids is None:
        return DeviceInfo(
            devclass="usb", backend=backend, port=port, described=_named(_decoded(entry["desc"]))
        )
    vendor, product, serial = (_decoded(field) for field in fields[1:])
    interfaces = _interfaces(entry.get("interfaces", ""))
    codes = "".join(interfaces)
    described = {"vendor": vendor, "product": product, "serial": serial}
    return DeviceInfo(
        devclass="usb",
        backend=backend,
        port=port,
        device_id=f"{ids[1]}:{ids[2]}:{_in_id(serial)}:{codes}",
        interfaces=codes,
        described={key: value for key, value in described.items() if value},
    )


def _interfaces(untrusted: str) -> tuple[str, ...]:
    codes = untrusted.strip(":").split(":")[:32]
    if not all(_USB_INTERFACE.fullmatch(code) for code in codes):
        return (UNKNOWN_INTERFACE,)
    return interfaces_of("".join(f"u{code}" for code in codes))


def _named(text: str) -> dict[str, str] | None:
    return {"name": text} if text else None


def _decoded(untrusted: str) -> str:
    """Text as udev encodes it."""
    return _text(_ENCODED.sub(lambda found: chr(int(found[1], 16)), untrusted))


def _in_id(serial: str) -> str:
    """A serial as a part of an id, in which seven underscores would be the unknown interface."""
    return _UNDERSCORES.sub("_" * 6, _NOT_IN_ID.sub("_", serial))


def _text(untrusted: str) -> str:
    return _NOT_IN_TEXT.sub("_", untrusted[:_MAX_TEXT]).strip()
