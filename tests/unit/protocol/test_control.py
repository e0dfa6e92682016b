"""The control port's messages: what is encoded comes back; anything else is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol import control
from insula.protocol.control import AgentHello, AgentState, Attach, Identity, Seed, Session, Status
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import take_raw_frame

NUMBERS = st.integers(0, 2**32 - 1)
SESSIONS = st.builds(Session, NUMBERS, NUMBERS, NUMBERS)


def body_of(encoded: bytes) -> bytes:
    raw = take_raw_frame(bytearray(encoded), control.MAX_FROM_HOST)
    assert raw is not None
    return raw.body


@given(NUMBERS, st.sampled_from(AgentState), st.lists(SESSIONS, max_size=30))
def test_hello_comes_back(version: int, state: AgentState, sessions: list[Session]) -> None:
    hello = AgentHello(version, state, tuple(sessions))
    assert AgentHello.decode(body_of(hello.encode())) == hello


@given(st.binary(max_size=200))
def test_any_hello_is_read_or_refused(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        hello = AgentHello.decode(untrusted)
        assert len(hello.sessions) <= control.MAX_SESSIONS


@given(st.integers(0, 2**64 - 1), st.binary(min_size=64, max_size=64))
def test_seed_comes_back(clock: int, entropy: bytes) -> None:
    seed = Seed(clock, entropy)
    assert Seed.decode(body_of(seed.encode())) == seed


def test_a_seed_of_another_size_is_not_sent() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        Seed(0, b"short").encode()


@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=10),
    st.dictionaries(st.text(max_size=20), st.integers(0, 2**63), max_size=3),
)
def test_identity_comes_back(qubesdb: dict[str, str], sizes: dict[str, int]) -> None:
    who = Identity(qubesdb, sizes)
    assert Identity.decode(body_of(who.encode())) == who
    assert Identity.decode(b'{"qubesdb": {"/name": "work"}}').sizes == {}


@given(st.binary(max_size=100))
def test_any_identity_is_read_or_refused(body: bytes) -> None:
    with suppress(ProtocolError):
        Identity.decode(body)


@given(NUMBERS, NUMBERS, NUMBERS, st.binary(min_size=16, max_size=16))
def test_attach_comes_back(domain: int, port: int, index: int, nonce: bytes) -> None:
    attach = Attach(domain, port, index, nonce)
    assert Attach.decode(body_of(attach.encode())) == attach


@given(NUMBERS, st.text(max_size=2000))
def test_a_status_is_cut_to_its_limit(code: int, text: str) -> None:
    status = Status.decode(body_of(Status(code, text).encode(control.ControlType.READY)))
    assert status.code == code
    assert len(status.text) <= control.MAX_ERROR_TEXT


@given(st.binary(max_size=2000))
def test_any_status_is_read_or_refused(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        Status.decode(untrusted)
