"""What processes write is kept to a bound, and taken no faster than that."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

import pytest

from insula.keeper.loop import Loop
from insula.keeper.ring import BURST, Ring
from insula.protocol.keeper import LOG_RING


class FakeLoop:
    """Notes what a ring asks of the loop."""

    def __init__(self) -> None:
        self.watched = False
        self.later: list[Callable[[], None]] = []

    def watch(self, _what: int, _callback: Callable[[], None], _events: int = 0) -> None:
        self.watched = True

    def unwatch(self, _what: int) -> None:
        self.watched = False

    def after(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)


class Written:
    """A ring and the other end of its pipe."""

    def __init__(self) -> None:
        source, self.end = os.pipe()
        os.set_blocking(source, False)
        self.loop = FakeLoop()
        self.ring = Ring(cast(Loop, self.loop), source)

    def close(self) -> None:
        self.ring.end()
        os.close(self.end)


@pytest.fixture
def written() -> Iterator[Written]:
    made = Written()
    yield made
    made.close()


def test_the_end_of_what_was_written_is_kept(written: Written) -> None:
    for number in range(40):
        os.write(written.end, b"%08d" % number * 1000)
        written.ring.drain()
    text = written.ring.text()
    assert len(text) == LOG_RING
    assert text.endswith("00000039")
    assert "00000030" not in text


def test_a_flood_is_taken_in_bursts(written: Written) -> None:
    stopping = threading.Event()
    os.set_blocking(written.end, False)

    def flood() -> None:
        while not stopping.is_set():
            with suppress(BlockingIOError):
                os.write(written.end, bytes(65536))

    writer = threading.Thread(target=flood)
    writer.start()
    try:
        while written.loop.watched:
            written.ring.drain()  # It comes back, though the flood goes on.
        assert len(written.loop.later) == 1
        assert len(written.ring.text()) == LOG_RING
        written.ring.drain()
        assert not written.loop.watched
        written.loop.later.pop()()
        assert written.loop.watched
    finally:
        stopping.set()
        writer.join()


def test_a_trickle_is_never_paused(written: Written) -> None:
    for _ in range(2 * BURST // 65536):
        os.write(written.end, bytes(65536))
        written.ring.drain()
        for resume in written.loop.later:
            resume()
        written.loop.later.clear()
    assert written.loop.watched


def test_what_is_no_text_is_shown_all_the_same(written: Written) -> None:
    os.write(written.end, b"\xff\xfe ok \x80")
    written.ring.drain()
    assert " ok " in written.ring.text()


def test_the_last_words_are_taken_at_the_end(written: Written) -> None:
    os.write(written.end, b"cannot allocate")
    written.ring.end()
    assert written.ring.text() == "cannot allocate"
    assert not written.loop.watched
