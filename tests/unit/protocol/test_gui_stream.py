"""Framing of the window protocol: any split, any bytes, exact lengths."""

import struct
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.limits import MAX_REFERENCES
from insula.protocol.gui.messages import (
    FIXED,
    HEADER,
    AgentMessage,
    ClipboardData,
    MessageType,
    Skipped,
    Unmap,
    ViewerMessage,
    WindowDump,
    encode,
)
from insula.protocol.gui.pages import pages_needed
from insula.protocol.gui.sessions import SessionScanner
from insula.protocol.gui.stream import take_from_agent, take_from_viewer
from insula.protocol.resync import WINDOW_PREFIX

AGENT_FIXED = [number for number, (kind, _) in FIXED.items() if kind in get_args(AgentMessage)]
VIEWER_FIXED = [number for number, (kind, _) in FIXED.items() if kind in get_args(ViewerMessage)]
words = st.integers(0, 2**32 - 1)


@st.composite
def fixed(draw: st.DrawFn, numbers: list[MessageType]) -> Any:
    kind, layout = FIXED[draw(st.sampled_from(numbers))]
    body = draw(st.binary(min_size=layout.size, max_size=layout.size))
    return kind(draw(words), *layout.unpack(body))


@st.composite
def dumps(draw: st.DrawFn) -> WindowDump:
    width, height = draw(st.integers(0, 200)), draw(st.integers(0, 200))
    count = pages_needed(width, height)
    references = draw(st.lists(words, min_size=count, max_size=count + 3))
    return WindowDump(draw(words), width, height, draw(words), tuple(references))


clipboards = st.builds(ClipboardData, words, st.binary(max_size=300))
agent_messages = st.one_of(fixed(AGENT_FIXED), dumps(), clipboards)
viewer_messages = st.one_of(fixed(VIEWER_FIXED), clipboards)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    out = []
    for size in cuts:
        out.append(data[:size])
        data = data[size:]
    return [*out, data]


def drain_agent(chunks: list[bytes], minor: int = 8) -> list[AgentMessage]:
    received, out = bytearray(), []
    for chunk in chunks:
        received += chunk
        while (message := take_from_agent(received, minor)) is not None:
            out.append(message)
    return out


@given(sent=st.lists(agent_messages, max_size=5), cuts=st.lists(st.integers(1, 99)))
def test_an_agents_messages_survive_any_split(sent: list[Any], cuts: list[int]) -> None:
    taken = drain_agent(pieces(b"".join(encode(one) for one in sent), cuts))
    assert [(type(one), one) for one in taken] == [(type(one), one) for one in sent]


@given(sent=st.lists(viewer_messages, max_size=5), cuts=st.lists(st.integers(1, 99)))
def test_a_viewers_messages_survive_any_split(sent: list[Any], cuts: list[int]) -> None:
    received, taken = bytearray(), []
    for chunk in pieces(b"".join(encode(one) for one in sent), cuts):
        received += chunk
        while (message := take_from_viewer(received)) is not None:
            taken.append(message)
    assert [(type(one), one) for one in taken] == [(type(one), one) for one in sent]


@given(untrusted=st.binary(), minor=st.integers(0, 8))
def test_any_bytes_give_messages_or_a_protocol_error(untrusted: bytes, minor: int) -> None:
    with suppress(ProtocolError):
        drain_agent([untrusted], minor)


@given(number=st.sampled_from(AGENT_FIXED), length=words, body=st.binary(max_size=200))
def test_a_wrong_length_is_refused_as_soon_as_the_header_is_there(
    number: MessageType, length: int, body: bytes
) -> None:
    right = FIXED[number][1].size
    received = bytearray(HEADER.pack(number, 1, length) + body)
    if length == right:
        taken = take_from_agent(received, 8)
        assert (taken is None) == (len(body) < right)
        return
    with pytest.raises(ProtocolError):
        take_from_agent(received, 8)


def test_before_1_6_the_right_length_is_assumed() -> None:
    received = bytearray(HEADER.pack(MessageType.UNMAP, 7, 1000) + encode(Unmap(8)))
    assert take_from_agent(received, 5) == Unmap(7)
    assert take_from_agent(received, 5) == Unmap(8)


@pytest.mark.parametrize("number", [0, 123, 124, 129, 135, 137, 138, 139, 142, 149, 150, 2**32 - 1])
def test_what_no_agent_may_send_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match="not an agent's"):
        take_from_agent(bytearray(HEADER.pack(number, 1, 0)), 8)


@pytest.mark.parametrize(
    ("kind", "width", "height", "count"),
    [(1, 1, 1, 1), (0, 16385, 1, 100), (0, 1, 6145, 100), (0, 40, 40, 1), (0, 2**32 - 1, 1, 1)],
)
def test_dumps_out_of_bounds_are_refused(kind: int, width: int, height: int, count: int) -> None:
    body = struct.pack(f"<IIII{count}I", kind, width, height, 32, *range(count))
    received = bytearray(HEADER.pack(MessageType.WINDOW_DUMP, 1, len(body)) + body)
    with pytest.raises(ProtocolError, match="window dump"):
        take_from_agent(received, 8)


@pytest.mark.parametrize("length", [0, 12, 17, 16 + 4 * MAX_REFERENCES + 4, 2**32 - 4])
def test_dumps_of_impossible_length_are_refused_by_their_header(length: int) -> None:
    with pytest.raises(ProtocolError, match="window dump"):
        take_from_agent(bytearray(HEADER.pack(MessageType.WINDOW_DUMP, 1, length)), 8)


@pytest.mark.parametrize(("minor", "limit"), [(8, 256_001), (7, 65_000)])
def test_the_clipboards_limit_depends_on_the_version(minor: int, limit: int) -> None:
    number = MessageType.CLIPBOARD_DATA
    assert take_from_agent(bytearray(HEADER.pack(number, 1, limit)), minor) is None
    with pytest.raises(ProtocolError, match="clipboard"):
        take_from_agent(bytearray(HEADER.pack(number, 1, limit + 1)), minor)


def test_the_agent_skips_messages_it_does_not_know() -> None:
    received = bytearray(HEADER.pack(200, 5, 3) + b"abc" + HEADER.pack(138, 6, 255) + bytes(255))
    assert take_from_viewer(received) == Skipped(5, 200)
    assert take_from_viewer(received) == Skipped(6, 138)
    assert not received


@given(
    before=st.binary(max_size=100).filter(lambda stale: WINDOW_PREFIX not in stale),
    nonce=st.binary(min_size=16, max_size=16),
    after=st.binary(max_size=100).filter(lambda data: WINDOW_PREFIX not in data),
    cuts=st.lists(st.integers(1, 40)),
)
def test_a_session_start_is_found_in_any_split(
    before: bytes, nonce: bytes, after: bytes, cuts: list[int]
) -> None:
    scanner = SessionScanner()
    session, belonging = None, b""
    for chunk in pieces(before + WINDOW_PREFIX + nonce + after, cuts):
        found, data = scanner.feed(chunk)
        if found is not None:
            session, belonging = found, b""
        belonging += data
    assert (session, belonging) == (nonce, after)


@given(
    data=st.lists(st.binary(max_size=40)).filter(lambda all_: WINDOW_PREFIX not in b"".join(all_))
)
def test_without_a_session_start_nothing_is_held_back(data: list[bytes]) -> None:
    scanner = SessionScanner()
    for chunk in data:
        assert scanner.feed(chunk) == (None, chunk)
