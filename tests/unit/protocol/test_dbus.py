"""Messages of a bus: there and back, by the specification's bytes, and broken ones."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.dbus import Kind, Message, Variant, socket_of, split, take_message
from insula.protocol.errors import ProtocolError

NOTIFY = Message(
    kind=Kind.CALL,
    path="/org/freedesktop/Notifications",
    interface="org.freedesktop.Notifications",
    member="Notify",
    destination="org.freedesktop.Notifications",
    signature="susssasa{sv}i",
    body=(
        *("mail", 7, "", "Ünread", "two\nlines", ["default", "Open"]),
        {"urgency": Variant("y", 2), "sound": Variant("(iiay)", (1, -1, b"abc"))},
        -1,
    ),
)


def test_a_message_is_as_the_specification_has_it() -> None:
    hello = Message(kind=Kind.CALL, path="/", interface="a.b", member="M", signature="u", body=(5,))
    assert hello.encode(1) == bytes.fromhex(
        "6c010001" "04000000" "01000000" "37000000"
        "01016f00" "01000000" "2f000000" "00000000"
        "02017300" "03000000" "612e6200" "00000000"
        "03017300" "01000000" "4d000000" "00000000"
        "08016700" "01750000"
        "05000000"
    )  # fmt: skip


@pytest.mark.parametrize("message", [NOTIFY, Message(kind=Kind.RETURN, reply_serial=3)])
def test_a_message_comes_back(message: Message) -> None:
    received = bytearray(message.encode(9) + b"l")
    found = take_message(received)
    assert found is not None
    assert found.serial == 9
    assert found.encode(9) == message.encode(9)
    assert found.body == message.body
    assert received == b"l"
    assert take_message(received) is None


def test_answers_go_to_who_asked() -> None:
    call = take_message(bytearray(NOTIFY.encode(4)))
    assert call is not None
    assert call.answer("u", 1) == Message(
        kind=Kind.RETURN, reply_serial=4, signature="u", body=(1,)
    )
    assert call.refusal("a.b").error_name == "a.b"


@given(st.binary())
def test_any_bytes_are_messages_or_a_mistake(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        take_message(bytearray(untrusted))


@given(st.data())
def test_a_message_that_is_changed_is_a_message_or_a_mistake(data: Any) -> None:
    changed = bytearray(NOTIFY.encode(1))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        take_message(changed)


@pytest.mark.parametrize(
    "signature", ["z", "a", "(", "(i", "a{s", "a()", "a{}", "a" * 20 + "i", "((((((((((i))))))))))"]
)
def test_what_is_no_type_is_a_mistake(signature: str) -> None:
    with pytest.raises(ProtocolError):
        list(split(signature))


def test_a_message_that_is_too_long_is_not_waited_for() -> None:
    head = bytearray(NOTIFY.encode(1)[:16])
    head[4:8] = b"\xff\xff\xff\x7f"
    with pytest.raises(ProtocolError, match="bytes"):
        take_message(head)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:path=/run/user/1/bus,guid=1", "/run/user/1/bus"),
        ("tcp:host=x;unix:abstract=/tmp/a%20b", "\0/tmp/a b"),
    ],
)
def test_an_address_names_a_socket(address: str, path: str) -> None:
    assert socket_of(address) == path


@pytest.mark.parametrize("address", ["", "tcp:host=x,port=1", "unix:", "unix:runtime=yes"])
def test_an_address_without_a_socket_is_a_mistake(address: str) -> None:
    with pytest.raises(ProtocolError):
        socket_of(address)
