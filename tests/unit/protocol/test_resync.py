"""A session is found behind whatever an older one left, however the bytes are cut."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from insula.protocol import control
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import frame
from insula.protocol.qrexec import ExecParameters, MessageType, hello
from insula.protocol.resync import CONTROL_PREFIX, MAX_STALE, MarkerFinder, PrefixScanner

MARKER = b"0123456789abcdef"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    out = []
    for cut in cuts:
        out.append(data[:cut])
        data = data[cut:]
    return [*out, data]


@given(st.binary(max_size=100), st.binary(max_size=100), st.lists(st.integers(1, 30)))
def test_stale_bytes_are_dropped(stale: bytes, fresh: bytes, cuts: list[int]) -> None:
    if MARKER in stale + MARKER[:-1]:
        return
    finder = MarkerFinder(MARKER)
    got = b"".join(finder.feed(piece) for piece in pieces(stale + MARKER + fresh, cuts))
    assert got == fresh


def test_a_peer_that_never_starts_is_given_up() -> None:
    finder = MarkerFinder(MARKER)
    for _ in range(MAX_STALE // 65_536):
        finder.feed(bytes(65_536))
    with pytest.raises(ProtocolError):
        finder.feed(bytes(65_536))


@given(st.binary(max_size=80), st.binary(max_size=80), st.lists(st.integers(1, 20)))
def test_a_new_session_is_seen_amid_data(before: bytes, after: bytes, cuts: list[int]) -> None:
    assume(CONTROL_PREFIX not in before and CONTROL_PREFIX not in after)
    scanner = PrefixScanner(CONTROL_PREFIX)
    got: list[bytes | tuple[bytes]] = []
    for piece in pieces(before + CONTROL_PREFIX + MARKER + after, cuts):
        got += scanner.feed(piece)
    starts = [item for item in got if isinstance(item, tuple)]
    assert starts == [(MARKER,)]
    place = got.index((MARKER,))
    assert b"".join(item for item in got[:place] if isinstance(item, bytes)) == before
    seen = b"".join(item for item in got[place + 1 :] if isinstance(item, bytes))
    assert after.startswith(seen)
    # What is held back is at most a beginning of a prefix.
    assert CONTROL_PREFIX.startswith(after[len(seen) :])


@pytest.mark.parametrize(
    "message",
    [
        control.park(),
        control.shutdown(),
        control.Clock(1_700_000_000_000_000_000).encode(),
        control.Identity({"/name": "work"}).encode(),
        hello(),
        frame(MessageType.EXEC_CMDLINE, ExecParameters(0, 513, "user:true").encode()),
    ],
)
def test_a_whole_message_is_passed_on_at_once(message: bytes) -> None:
    assert PrefixScanner(CONTROL_PREFIX).feed(message) == [message]
