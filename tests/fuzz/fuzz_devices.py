"""Devices and firewall rules: named, serialised, reported by qubes; read or refused."""

from contextlib import suppress

from insula.protocol.devices import (
    category,
    interfaces_of,
    parse_argument,
    parse_serialised,
    read_available,
)
from insula.protocol.errors import ProtocolError
from insula.protocol.firewall import parse_rules
from insula.protocol.reported import block_devices, usb_devices


def fuzz(data: bytes) -> None:
    """One input: an argument, a serialised device, rules and what a qube reports of devices."""
    text = data.decode("utf-8", "replace")
    with suppress(ProtocolError):
        name = parse_argument(text)
        assert parse_argument(name.argument()) == name
    with suppress(ProtocolError):
        parse_serialised(text)
    for line in text.split("\n"):
        read_available(line, "work", "usb")
    with suppress(ProtocolError):
        rules = parse_rules(text)
        assert parse_rules("".join(f"{rule}\n" for rule in rules)) == rules
    for code in interfaces_of(text[:70]):
        category(code)
    reported = dict(zip(words := text.split("\n"), words[1:], strict=False))
    reported |= {f"/qubes-usb-devices/1-1/{key}": value for key, value in reported.items()}
    reported |= {f"/qubes-block-devices/sda/{key}": value for key, value in reported.items()}
    reported |= {"/qubes-usb-devices/1-1/desc": text, "/qubes-block-devices/sda/desc": text}
    for device in (*usb_devices("work", reported), *block_devices("work", reported)):
        assert parse_argument(device.name.argument()) == device.name
        items = parse_serialised(device.line().partition(" ")[2])
        assert items["interfaces"] == device.interfaces
