"""Devices as the Admin API spells them (admin-api.md section 3.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.devices import (
    UNKNOWN_ID,
    DeviceInfo,
    DeviceName,
    category,
    interfaces_of,
    matches,
    parse_argument,
    parse_serialised,
    read_available,
    serialise,
)
from insula.protocol.errors import ProtocolError


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("sys-usb+2-1.4+1234+abcd+S1+u080650", "sys-usb:2-1.4:1234:abcd:S1:u080650"),
        ("sys-usb+_+1234+abcd++u080650", "sys-usb:*:1234:abcd::u080650"),
        ("sys-usb+2-1.4+_", "sys-usb:2-1.4:*"),
        ("sys-usb+2-1.4+0000+0000++_______", "sys-usb:2-1.4:0000:0000::?******"),
        ("dom0+mic+dom0+mic++m000000", "dom0:mic:dom0:mic::m000000"),
        ("_+2-1+_", "*:2-1:*"),
        ("dom0+00_14.0+0x8086+0xa12f++p0c0330", "dom0:00_14.0:0x8086:0xa12f::p0c0330"),
    ],
)
def test_names_as_arguments(argument: str, text: str) -> None:
    name = parse_argument(argument)
    assert str(name) == text
    assert name.argument() == argument


def test_a_name_may_leave_the_id_out() -> None:
    name = parse_argument("sys-usb+2-1")
    assert name == DeviceName("sys-usb", "2-1", None)
    assert name.argument() == "sys-usb+2-1"
    assert str(name) == "sys-usb:2-1:*"


@pytest.mark.parametrize(
    "text", ["", "sys-usb", "+x", "sys-usb+", "a+b c", "a+b/c+_", "a+b+", "a+b+c=", "a+b+c\\"]
)
def test_what_names_no_device(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_argument(text)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", {}),
        ("a='b'", {"a": "b"}),
        ("a='b'  c='d e'", {"a": "b", "c": "d e"}),
        (r"product='Bob\'s key' vendor='Acme'", {"product": "Bob's key", "vendor": "Acme"}),
        ("a='' _read-only='yes'", {"a": "", "_read-only": "yes"}),
        ("a='x=y' b='1'", {"a": "x=y", "b": "1"}),
    ],
)
def test_serialised_items(text: str, items: dict[str, str]) -> None:
    assert parse_serialised(text) == items
    assert parse_serialised(serialise(items.items())) == items


@pytest.mark.parametrize("text", ["a", "a=b", "a='b", "='b'", "a='b' c", "a='\u00e4'", "a b='c'"])
def test_what_is_not_serialised(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_serialised(text)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_][a-z0-9_-]*", fullmatch=True),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).filter(
            lambda text: "='" not in text and "\\" not in text and not text.endswith(("'", "="))
        ),
    )
)
def test_what_is_serialised_is_read(items: dict[str, str]) -> None:
    assert parse_serialised(serialise(items.items())) == items


@given(st.text())
def test_anything_is_read_or_refused(text: str) -> None:
    for parse in (parse_argument, parse_serialised):
        try:
            parse(text)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("u080650", "USB_Storage"),
        ("b******", "Block_Storage"),
        ("u030101", "Keyboard"),
        ("u030102", "Mouse"),
        ("u030000", "Input"),
        ("p0c0330", "PCI_USB"),
        ("p0c0500", "PCI_Serial_Bus"),
        ("p020000", "Network"),
        ("m000000", "Microphone"),
        ("p030000", "Display"),
        ("p040300", "Audio"),
        ("ue00101", "Bluetooth"),
        ("?******", "Other"),
        ("uff0000", "Other"),
    ],
)
def test_categories(code: str, expected: str) -> None:
    assert category(code) == expected


def test_patterns() -> None:
    assert interfaces_of("u030101u030102") == ("u030101", "u030102")
    assert matches("u03****", "u030101")
    assert not matches("u03****", "u080650")
    assert not matches("u03", "u030101")


def test_the_line_of_an_available_device() -> None:
    device = DeviceInfo(
        devclass="usb",
        backend="sys-usb",
        port="2-1.4",
        device_id="1234:abcd:S1:u080650",
        interfaces="u080650",
        described={"product": "Bob's key", "vendor": "Acme"},
    )
    assert device.line("work") == (
        "2-1.4:1234:abcd:S1:u080650 device_id='1234:abcd:S1:u080650' port_id='2-1.4' "
        r"devclass='usb' backend_domain='sys-usb' product='Bob\'s key' vendor='Acme' "
        "attachment='work' interfaces='u080650'"
    )
    part = DeviceInfo(
        devclass="block",
        backend="sys-usb",
        port="sda1",
        interfaces="b******",
        parent=("block", "sda"),
        data={"size": "512"},
    )
    assert part.line().endswith(
        "interfaces='b******' parent_port_id='sda' parent_devclass='block' _size='512'"
    )


RECORD = "device_id='1:2' port_id='2-1' devclass='usb' backend_domain='sys-usb' interfaces='u0'"


def test_a_line_of_what_is_available() -> None:
    read = read_available(f"2-1:1:2 {RECORD}", "sys-usb", "usb")
    assert read is not None
    assert str(read[0]) == "sys-usb:2-1:1:2"
    assert read[1]["interfaces"] == "u0"


@pytest.mark.parametrize(
    "line",
    [
        "2-1:1:2",
        "2-1",
        "2-1:1:2 nonsense",
        "2-1:1:2 product='x='" + RECORD,
        f"2-1:1:3 {RECORD}",
        f"2-1:1:2= {RECORD}",
        f"2-1:1:2 {RECORD}".replace("'usb'", "'block'"),
        f"2-1:1:2 {RECORD}".replace("'sys-usb'", "'dom0'"),
        f"2-1:1:2 {RECORD}".replace("'2-1'", "'2-2'"),
    ],
)
def test_a_record_that_is_not_believed_is_of_an_unknown_device(line: str) -> None:
    assert read_available(line, "sys-usb", "usb") == (DeviceName("sys-usb", "2-1", UNKNOWN_ID), {})


@pytest.mark.parametrize("line", ["", ":", " ", "2/1:1:2 x", "\u00e4:1 x"])
def test_a_line_without_a_port_is_none(line: str) -> None:
    assert read_available(line, "sys-usb", "usb") is None
