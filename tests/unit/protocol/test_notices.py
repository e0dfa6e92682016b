"""Notices of qubes: there and back, and what of them can be shown."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.notices import (
    Acted,
    Close,
    Closed,
    Show,
    Urgency,
    take_of_dom0,
    take_of_qube,
)

SHOW = Show(3, Urgency.LOW, 500, "Ünread".encode(), b"a\nb", (b"Open", b"Later"))


def test_messages_come_back() -> None:
    received = bytearray(SHOW.encode() + Close(3).encode() + b"\x01")
    assert take_of_qube(received) == SHOW
    assert take_of_qube(received) == Close(3)
    assert take_of_qube(received) is None
    received = bytearray(Closed(3, 2).encode() + Acted(3, 1).encode())
    assert [take_of_dom0(received) for _ in range(3)] == [Closed(3, 2), Acted(3, 1), None]


def test_what_is_shown_hides_nothing() -> None:
    untrusted = "vault\u202eevil\u200b\x1b[1m\nx".encode() + b"\xff"
    show = Show(1, Urgency.NORMAL, -1, untrusted, untrusted, (untrusted,))
    assert show.summary == "vault___evil____[1m x_"
    assert show.body == "vault___evil____[1m\nx_"
    assert show.actions == ["vault___evil____[1m x_"]


def test_what_is_too_long_is_cut() -> None:
    long = Show(1, Urgency.NORMAL, -1, b"s" * 9999, b"\n".join([b"line"] * 500), (b"a" * 999,) * 9)
    taken = take_of_qube(bytearray(long.encode()))
    assert isinstance(taken, Show)
    assert len(taken.summary) == 200
    assert taken.body.count("\n") == 11
    assert taken.actions == ["a" * 60] * 4
    assert len(Show(1, Urgency.LOW, -1, b"s" * 9999).summary) == 200


@pytest.mark.parametrize(
    "message",
    [
        b"\x09" + bytes(4),
        b"\x01\xff\xff\xff\xff",
        b"\x01" + bytes(4),
        b"\x02\x03\0\0\0abc",
        Show(0, Urgency.LOW, -1, b"").encode(),
        Show(1, Urgency.LOW, -2, b"").encode(),
        Closed(1, 1).encode(),
    ],
)
def test_what_is_not_as_it_must_be_is_a_mistake(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        take_of_qube(bytearray(message))


def test_a_notice_of_no_known_urgency_is_a_mistake() -> None:
    encoded = bytearray(SHOW.encode())
    encoded[9] = 7
    with pytest.raises(ProtocolError, match="urgency"):
        take_of_qube(encoded)


@given(st.binary())
def test_any_bytes_are_messages_or_a_mistake(untrusted: bytes) -> None:
    for take in (take_of_qube, take_of_dom0):
        with suppress(ProtocolError):
            take(bytearray(untrusted))
