"""The window agent without an X server: pages of the pixel region, hints, its channel."""

import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.guest.gui.channel import Listener
from insula.guest.gui.hints import size_hints
from insula.guest.gui.region import Pages, Region, persistent_memory
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.messages import WindowHints

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
100000000-10fffffff : Persistent Memory
  100000000-10fffffff : namespace0.0
fd00000000-fdffffffff : PCI Bus 0000:00
"""


@given(sizes=st.lists(st.integers(1, 40)), order=st.randoms(use_true_random=False))
def test_runs_of_pages_never_overlap_and_all_come_back(sizes: list[int], order: object) -> None:
    pages = Pages(100)
    taken: list[tuple[int, int]] = []
    for size in sizes:
        first = pages.take(size)
        if first is None:
            if taken:
                pages.give_back(*taken.pop(order.randrange(len(taken))))  # type: ignore[attr-defined]
            continue
        taken.append((first, size))
        numbers = [page for start, count in taken for page in range(start, start + count)]
        assert len(set(numbers)) == len(numbers)
        assert max(numbers) < 100
        assert pages.free == 100 - len(numbers)
    for run in taken:
        pages.give_back(*run)
    assert pages.take(100) == 0


def test_the_region_is_found_among_the_machines_memory() -> None:
    assert persistent_memory(IOMEM) == (0x1_0000_0000, 0x1000_0000)
    with pytest.raises(FileNotFoundError):
        persistent_memory("00000000-00000fff : Reserved\n")


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    corner=st.tuples(st.integers(0, 59), st.integers(0, 59)),
    far=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_a_part_lands_in_its_place_of_the_image(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    corner: tuple[int, int],
    far: tuple[int, int],
) -> None:
    part = Rect(0, 0, *size).intersect(Rect(*corner, *far))
    if part is None:
        return
    path = tmp_path_factory.mktemp("region") / "pixels"
    path.write_bytes(bytes(16 * 4096))
    region = Region.open(str(path))
    assert region.allocate(1, 1) is not None
    buffer = region.allocate(*size)
    assert buffer is not None
    pixels = list(range(1, part.width * part.height + 1))
    region.write(buffer, part, memoryview(struct.pack(f"{len(pixels)}I", *pixels)))
    words = memoryview(path.read_bytes()).cast("I")
    start = buffer.first * 1024
    for y in range(size[1]):
        for x in range(size[0]):
            here = words[start + y * size[0] + x]
            if part.x <= x < part.right and part.y <= y < part.bottom:
                assert here == pixels[(y - part.y) * part.width + x - part.x]
            else:
                assert here == 0


def test_a_full_region_says_so(tmp_path: Path) -> None:
    path = tmp_path / "pixels"
    path.write_bytes(bytes(4 * 4096))
    region = Region.open(str(path))
    assert region.allocate(64, 64) is not None
    assert region.allocate(1, 1) is None
    region.forget_buffers()
    assert region.allocate(1, 1) is not None


def test_minimum_sizes_are_moved_to_where_increments_reach() -> None:
    words = (0x3FF, 0, 0, 0, 0, 100, 54, 900, 800, 10, 20, 1, 1, 2, 2, 4, 4, 1)
    assert size_hints(7, words) == WindowHints(7, 0x175, 94, 44, 900, 800, 10, 20, 4, 4)


def test_old_and_empty_hints_are_read() -> None:
    assert size_hints(7, ()) == WindowHints(7, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    old = (0x110, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0)
    assert size_hints(7, old) == WindowHints(7, 0x10, 5, 6, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[Listener, select.epoll, str]]:
    path = str(tmp_path / "gui.sock")
    with select.epoll() as poller:
        made = Listener(poller, path)
        yield made, poller, path
        made.close()


def test_the_newest_viewer_is_served(listener: tuple[Listener, select.epoll, str]) -> None:
    channel, poller, path = listener
    assert channel.receive()[:2] == (b"", False)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.connect(path)
        first.sendall(b"one")
        assert channel.receive()[:2] == (b"one", True)
        channel.send(b"answer")
        assert first.recv(10) == b"answer"
        second.connect(path)
        second.sendall(b"two")
        assert channel.receive()[:2] == (b"two", True)
        assert first.recv(10) == b""
    assert channel.receive()[:2] == (b"", False)
    assert poller.poll(0) == []


def test_what_a_viewer_did_not_take_waits_and_goes_with_it(
    listener: tuple[Listener, select.epoll, str],
) -> None:
    channel, _, path = listener
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.connect(path)
        assert channel.receive()[:2] == (b"", True)
        sent = os.urandom(3_000_000)
        channel.send(sent)
        assert 0 < channel.unsent < len(sent)
        taken = bytearray()
        while len(taken) < len(sent):
            taken += viewer.recv(65536)
            channel.flush()
        assert taken == sent
        channel.send(sent)
        assert channel.unsent > 0
    assert channel.receive()[:2] == (b"", False)
    assert channel.unsent == 0
