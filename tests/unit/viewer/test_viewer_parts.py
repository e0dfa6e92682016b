"""What a viewer is made of, without an X server: pixels, channel, restraint, configuration."""

import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.handshake import agent_accepts, agent_opening
from insula.protocol.gui.messages import Close, Dock, Unmap, WindowDump, WindowHints, encode
from insula.protocol.gui.pages import pages_needed
from insula.viewer.channel import MAX_UNSENT, Channel, ChannelClosedError
from insula.viewer.config import Config, parse
from insula.viewer.delay import Delay
from insula.viewer.region import Region
from insula.viewer.restraint import Bucket, Log, Suspicions
from insula.viewer.session_link import SessionLink
from insula.viewer.window import bounded_hints

PAGES = 64
MARKER = 32  # bytes
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    """A region in which every pixel is the number of its place."""
    descriptor = os.memfd_create("pixels", os.MFD_ALLOW_SEALING)
    count = PAGES * 1024
    os.write(descriptor, struct.pack(f"<{count}I", *range(count)))
    fcntl.fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK)
    yield Region(descriptor)
    os.close(descriptor)


@st.composite
def images(draw: st.DrawFn) -> tuple[WindowDump, Rect]:
    width, height = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    count = pages_needed(width, height)
    page = st.integers(0, PAGES - 1)
    if draw(st.booleans()):
        first = draw(st.integers(0, PAGES - count))
        references = tuple(range(first, first + count))
    else:
        references = tuple(draw(st.lists(page, min_size=count, max_size=count + 2)))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    part = Rect(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
    return WindowDump(1, width, height, 32, references), part


@given(drawn=images())
def test_a_part_of_an_image_is_found_in_its_pages(
    region: Region, drawn: tuple[WindowDump, Rect]
) -> None:
    dump, part = drawn
    target = memoryview(bytearray(part.width * part.height * 4))
    region.copy(region.image(dump), part, target)
    expected = []
    for y in range(part.y, part.bottom):
        for x in range(part.x, part.right):
            index = y * dump.width + x
            expected.append(dump.references[index // 1024] * 1024 + index % 1024)
    assert list(target.cast("I")) == expected


@pytest.mark.parametrize("page", [PAGES, 2**32 - 1])
def test_pages_outside_the_region_are_refused(region: Region, page: int) -> None:
    with pytest.raises(ProtocolError, match=f"page {page} of {PAGES}"):
        region.image(WindowDump(1, 40, 40, 32, (0, page)))


def test_pages_beyond_those_needed_do_not_count(region: Region) -> None:
    assert region.image(WindowDump(1, 1, 1, 32, (5, PAGES + 1))).runs == ((0, 5 * 4096, 4096),)


def test_a_region_that_can_shrink_is_refused() -> None:
    descriptor = os.memfd_create("pixels", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 4096)
    with pytest.raises(OSError, match="not sealed"):
        Region(descriptor)
    os.close(descriptor)


@pytest.fixture
def joined() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and the qube's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours, 1280, 1024, 24), theirs


def take(channel: Channel) -> object:
    channel.receive()
    return channel.take()


def test_a_session_begins_behind_stale_bytes(joined: tuple[Channel, socket.socket]) -> None:
    channel, qube = joined
    marker = qube.recv(MARKER)
    qube.sendall(b"left over" + encode(Dock(3)) + marker[:20])
    assert take(channel) is None
    qube.sendall(marker + agent_opening() + encode(Dock(5)))
    assert take(channel) == Dock(5)
    channel.flush()
    minor, screen = agent_accepts(qube.recv(100))
    assert (minor, screen[:3]) == (8, (1280, 1024, 24))
    qube.sendall(encode(Unmap(6))[:7])
    assert take(channel) is None
    qube.sendall(encode(Unmap(6))[7:])
    assert take(channel) == Unmap(6)


def test_a_qube_that_does_not_read_is_not_waited_for(joined: tuple[Channel, socket.socket]) -> None:
    channel, _ = joined
    for _ in range((MAX_UNSENT - channel.unsent) // len(encode(Close(1)))):
        channel.send(Close(1))
    with pytest.raises(ProtocolError, match="unread"):
        channel.send(Close(1))
    channel.flush()
    assert 0 < channel.unsent < MAX_UNSENT


def test_the_end_of_the_channel_is_noticed(joined: tuple[Channel, socket.socket]) -> None:
    channel, qube = joined
    assert take(channel) is None
    qube.close()
    with pytest.raises(ChannelClosedError):
        channel.receive()


@given(untrusted=st.binary(max_size=300))
def test_any_bytes_after_the_session_start_are_messages_or_refused(untrusted: bytes) -> None:
    ours, qube = socket.socketpair()
    with ours, qube, suppress(ProtocolError):
        channel = Channel(ours, 1280, 1024, 24)
        qube.sendall(qube.recv(MARKER) + untrusted)
        channel.receive()
        while channel.take() is not None:
            pass


def test_ten_suspicious_messages_are_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    suspicions = Suspicions(Log("work"), SessionLink(None))
    for _ in range(9):
        suspicions.note("something")
    with pytest.raises(ProtocolError, match="10 suspicious"):
        suspicions.note("the last")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "viewer work: suspicious message dropped: something"


def test_a_qube_cannot_flood_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log("work")
    for _ in range(1000):
        log.write("line")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 200
    assert "last line" in lines[-1]


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(3, 10)
    taken = 0
    now = 100.0
    while bucket.wait(now) == 0:
        bucket.take()
        taken += 1
    assert taken == 3
    assert bucket.wait(now) == pytest.approx(0.1)
    assert bucket.wait(now + 0.1001) == 0


def test_configuration_is_read() -> None:
    config = parse(
        '{"name": "work", "color": "0x3465a4", "label": 6,'
        ' "options": {"allow_fullscreen": true, "window_background_color": "#000001"}}'
    )
    assert config == Config("work", 0x3465A4, 6, allow_fullscreen=True, window_background=1)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "7",
        "no JSON",
        '{"name": "", "color": "ff0000", "label": 1}',
        '{"name": "a\\u0007", "color": "ff0000", "label": 1}',
        '{"name": "work", "color": "reddish", "label": 1}',
        '{"name": "work", "color": "ff0000", "label": 1, "options": 3}',
    ],
)
def test_configuration_that_is_not_as_expected_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@pytest.mark.parametrize("disabled", ["disable", "disabled"])
def test_both_spellings_of_disabled_count(disabled: str) -> None:
    options = {"override_redirect": disabled}
    config = parse(json.dumps({"name": "w", "color": "black", "label": 8, "options": options}))
    assert not config.override_redirect_allowed


@given(words=st.tuples(*[st.integers(0, 2**32 - 1)] * 9))
def test_hints_out_of_bounds_are_dropped_by_group(words: tuple[int, ...]) -> None:
    kept = bounded_hints(WindowHints(1, *words))
    assert not kept.flags & 0x10 or (kept.min_width <= 16384 and kept.min_height <= 6144)
    assert not kept.flags & 0x20 or (0 < kept.max_width <= 16384 and 0 < kept.max_height <= 6144)
    assert not kept.flags & 0x40 or (kept.width_inc < 16384 and kept.height_inc < 6144)
    assert not kept.flags & 0x100 or (kept.base_width <= 16384 and kept.base_height <= 6144)


@given(
    longest=st.integers(0, 50),
    times=st.lists(st.floats(0, 0.1), min_size=1, max_size=30),
)
def test_events_are_held_back_in_order_and_no_longer_than_allowed(
    longest: int, times: list[float]
) -> None:
    delay, now, given_back, came = Delay(longest), 0.0, [], []
    for number, step in enumerate(times):
        now += step
        came.append(now)
        given_back += [(now, event) for event in delay.pass_on([number], now)]
        given_back += [(now, event) for event in delay.over(now)]
    while (due := delay.due) is not None:
        given_back += [(due, event) for event in delay.over(due)]
    assert [event for _, event in given_back] == list(range(len(times)))
    for at, number in given_back:
        assert at <= came[number] + longest / 1000 + 0.1
