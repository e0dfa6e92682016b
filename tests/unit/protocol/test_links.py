"""What is said of network cards: what is encoded comes back; anything else is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.control import MAX_ERROR_TEXT, MAX_FROM_HOST, ControlType
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import take_raw_frame
from insula.protocol.links import Link, LinkRole, LinkStatus, unlink, unlinked_number

NUMBERS = st.integers(0, 2**32 - 1)
TEXTS = st.text(max_size=20)
SEVERAL = st.lists(TEXTS, max_size=3).map(tuple)
LINKS = st.builds(
    Link,
    number=NUMBERS,
    role=st.sampled_from(LinkRole),
    mac=TEXTS,
    name=TEXTS,
    own_mac=st.none() | TEXTS,
    client_mac=st.none() | TEXTS,
    ips=SEVERAL,
    visible_ip=st.none() | TEXTS,
    visible_gateway=st.none() | TEXTS,
    gateways=SEVERAL,
    dns=SEVERAL,
)


def body_of(encoded: bytes, kind: ControlType) -> bytes:
    raw = take_raw_frame(bytearray(encoded), MAX_FROM_HOST)
    assert raw is not None
    assert raw.type == kind
    return raw.body


@given(LINKS)
def test_a_link_comes_back(link: Link) -> None:
    assert Link.decode(body_of(link.encode(), ControlType.LINK)) == link


@given(st.binary(max_size=200))
def test_any_link_is_read_or_refused(body: bytes) -> None:
    with suppress(ProtocolError):
        Link.decode(body)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"role": "uplink"}', b'{"ips": 3}'])
def test_what_describes_no_link_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Link.decode(body)


@given(NUMBERS, NUMBERS, st.text(max_size=2000))
def test_an_outcome_is_cut_to_its_limit(number: int, code: int, text: str) -> None:
    encoded = LinkStatus(number, code, text).encode(ControlType.LINKED)
    status = LinkStatus.decode(body_of(encoded, ControlType.LINKED))
    assert (status.number, status.code) == (number, code)
    assert len(status.text) <= MAX_ERROR_TEXT


@given(st.binary(max_size=2000))
def test_any_outcome_is_read_or_refused(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        LinkStatus.decode(untrusted)


@given(NUMBERS)
def test_a_number_comes_back(number: int) -> None:
    assert unlinked_number(body_of(unlink(number), ControlType.UNLINK)) == number
    with pytest.raises(ProtocolError):
        unlinked_number(b"")
