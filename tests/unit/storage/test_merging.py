"""Layers made one show what they showed together, to QEMU too; hostile tables do no harm."""

import os
import random
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from insula.daemon.model.machine import Disk, Layer
from insula.daemon.model.volume import Revision
from insula.daemon.storage import qcow2
from insula.daemon.storage.errors import DamagedImageError
from insula.daemon.storage.merging import merged_name, write_merged
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.reader import CLUSTER, Mark, Qcow2Reader, RawReader
from insula.daemon.storage.volumes import Storage
from insula.protocol.errors import ProtocolError

from .conftest import attached, saved, snapshot, written
from .qemu import check, disk_io, run


async def test_merged_volume_shows_the_same_and_keeps_its_revision(storage: Storage) -> None:
    private = await written(storage, saved(), "write -P 1 0 8M", "write -P 2 1M 1M")
    for number in range(3, 9):
        private = await written(
            storage, private, f"write -P {number} {number}M 64k", f"write -z -u {number}M 4k"
        )
    private = await written(storage, private, "discard 0 512k", "write -P 9 40M 1M")
    state = private.state
    merged = await storage.merge(private, longest=3)
    assert len(merged.layers) == 3  # The heavy base, what was merged, and the last.
    assert merged.state == state
    removed = await storage.prune(merged)
    assert len(removed) == 6
    reads = ["read -P 0 0 512k", "read -P 1 512k 512k", "read -P 2 1M 1M", "read -P 9 40M 1M"]
    for number in range(3, 8):
        reads += [f"read -P 0 {number}M 4k", f"read -P {number} {number * 1024 + 4}k 60k"]
    async with attached(storage, Plan(volume=snapshot(), source=merged)) as disk:
        disk_io(disk, *reads)
    reverted = await storage.revert(merged, merged.revisions[-1].number)
    async with attached(storage, Plan(volume=snapshot(), source=reverted)) as disk:
        disk_io(disk, "read -P 1 0 1M", "read -P 0 40M 1M", "read -P 8 8196k 60k")


async def test_merging_with_a_light_base_leaves_one_layer(storage: Storage) -> None:
    private = saved()
    for number in range(1, 6):
        private = await written(storage, private, f"write -P {number} {number}M 1M")
    merged = await storage.merge(private, longest=2)
    assert merged.layers == ("1-4.qcow2", "5.qcow2")
    async with attached(storage, Plan(volume=merged)) as disk:
        disk_io(disk, *(f"read -P {number} {number}M 1M" for number in range(1, 6)))
    assert await storage.merge(merged, longest=2) == merged


async def test_merging_goes_on_while_the_volume_is_in_use(storage: Storage) -> None:
    private = saved()
    for number in range(1, 5):
        private = await written(storage, private, f"write -P {number} {number}M 1M")
    async with attached(storage, Plan(volume=private)) as disk:
        private = await storage.merge(private, longest=2)
        await storage.prune(private)
        disk_io(disk, "read -P 1 1M 1M", "write -P 6 6M 1M", "flush")
    private = await storage.commit(private)
    async with attached(storage, Plan(volume=private)) as disk:
        disk_io(disk, "read -P 1 1M 1M", "read -P 4 4M 1M", "read -P 6 6M 1M")


async def test_layer_written_by_a_hostile_machine_stops_the_merge_alone(storage: Storage) -> None:
    private = saved()
    for number in range(1, 5):
        private = await written(storage, private, f"write -P {number} {number}M 1M")
    async with attached(storage, Plan(volume=private)) as disk:
        path = disk.layers[1].path
    with path.open("r+b") as file:  # An external data file, as QEMU would open by its name.
        file.seek(72)
        file.write(struct.pack(">Q", 4))
    with pytest.raises(DamagedImageError, match="incompatible features 0x4"):
        await storage.merge(private, longest=2)
    assert not [name for name in path.parent.iterdir() if "-" in name.name]


@st.composite
def layers(draw: st.DrawFn) -> list[dict[int, int]]:
    """Layers as {cluster: pattern}; pattern 0 is an explicit zero."""
    one = st.dictionaries(st.integers(0, 40), st.integers(0, 255), max_size=12)
    return draw(st.lists(one, min_size=1, max_size=4))


@settings(deadline=None, max_examples=60)
@given(contents=layers(), below=st.booleans())
def test_merging_shows_for_each_cluster_the_uppermost_layer_that_has_it(
    contents: list[dict[int, int]], below: bool
) -> None:
    size = 41 * CLUSTER
    readers = [_Kept(content) for content in contents]
    target = os.memfd_create("merged")
    try:
        write_merged(target, readers, size, blank_below=not below)
        merged = Qcow2Reader(target)
        for index in range(41):
            found = [content[index] for content in contents if index in content]
            expected: Mark | bytes = Mark.ABSENT
            if found:
                expected = bytes([found[-1]]) * CLUSTER if found[-1] else Mark.ZERO
            if expected is Mark.ZERO and not below:
                expected = Mark.ABSENT
            assert merged.cluster(index) == expected
    finally:
        os.close(target)


def test_merged_image_of_more_than_one_reference_block_passes_qemus_check(tmp_path: Path) -> None:
    """32768 clusters are counted in one block; tables beyond 512 MiB take an L2 each."""
    size = 3 << 30
    wanted = range(0, size // CLUSTER, 3)
    path = tmp_path / "merged.qcow2"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    write_merged(descriptor, [_Sparse(set(wanted) | set(range(33_000)))], size, blank_below=True)
    disk = Disk("x", (Layer(path, "qcow2", writable=True, fd=descriptor),), False, size)
    check(disk)
    at = wanted[-1] * CLUSTER
    disk_io(disk, f"read -P 7 {at} 512", f"read -P 0 {at + 512} 128k", "write -P 8 2G 1M")
    check(disk)
    os.close(descriptor)


def test_what_qemu_wrote_is_read_alike(tmp_path: Path) -> None:
    """Against an image written in random order by QEMU, its raw form as the measure."""
    drawn = random.Random(7)
    path, raw = tmp_path / "layer.qcow2", tmp_path / "layer.raw"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "128M"])
    words = ["qemu-io", "-f", "qcow2"]
    for _ in range(60):
        verb = drawn.choice(["write -P 5", "write -P 6", "write -z", "discard"])
        words += ["-c", f"{verb} {drawn.randrange(125)}M {drawn.randrange(1, 300) * 4}k"]
    run([*words, str(path)])
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw)])
    with path.open("rb") as layer, raw.open("rb") as flat:
        reader, measure = Qcow2Reader(layer.fileno()), RawReader(flat.fileno())
        for index in range((128 << 20) // CLUSTER):
            assert _shown(reader.cluster(index)) == _shown(measure.cluster(index))


@given(untrusted=st.binary(max_size=200))
def test_any_bytes_are_a_header_or_a_protocol_error(untrusted: bytes) -> None:
    with suppress(ProtocolError):
        qcow2.parse_header(untrusted)


@settings(deadline=None)
@example(changes=[], header=[(40, 128)], cut=104)  # an L1 table beyond any file
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4 * CLUSTER // 8 - 1), st.integers(0, 2**64 - 1)), max_size=8
    ),
    header=st.lists(st.tuples(st.integers(4, 111), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 6 * CLUSTER),
)
def test_any_tables_give_clusters_or_a_protocol_error(
    changes: list[tuple[int, int]], header: list[tuple[int, int]], cut: int
) -> None:
    descriptor = os.memfd_create("hostile")
    try:
        qcow2.write_blank(descriptor, 1 << 30)
        for place, value in changes:
            os.pwrite(descriptor, struct.pack(">Q", value), 3 * CLUSTER + place * 8)
        for place, value in header:
            os.pwrite(descriptor, bytes([value]), place)
        os.ftruncate(descriptor, cut)
        with suppress(ProtocolError):
            reader = Qcow2Reader(descriptor)
            for index in (0, 1, 8191, 8192, 16383):
                found = reader.cluster(index)
                assert isinstance(found, Mark) or len(found) == CLUSTER
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"QFI\xfa", "no qcow2 image"),
        (8, struct.pack(">Q", 512), "names a backing file"),
        (20, struct.pack(">I", 22), "clusters have 22 bits"),
        (24, struct.pack(">Q", 0), "claims a size of 0"),
        (24, struct.pack(">Q", 1 << 60), "claims a size"),
        (32, struct.pack(">I", 2), "encrypted"),
        (36, struct.pack(">I", 0), "claims a size"),
        (40, struct.pack(">Q", 8), "not aligned"),
        (60, struct.pack(">I", 1), "internal snapshots"),
        (72, struct.pack(">Q", 1 << 4), "incompatible features 0x10"),
    ],
)
def test_header_that_ours_never_have_is_refused(offset: int, value: bytes, reason: str) -> None:
    descriptor = os.memfd_create("image")
    qcow2.write_blank(descriptor, 1 << 30)
    untrusted = bytearray(os.pread(descriptor, CLUSTER, 0))
    os.close(descriptor)
    untrusted[offset : offset + len(value)] = value
    with pytest.raises(ProtocolError, match=reason):
        qcow2.parse_header(bytes(untrusted))


def test_names_of_merged_layers_tell_what_they_hold() -> None:
    assert merged_name(("1.raw", "2.qcow2")) == "1-2.qcow2"
    assert merged_name(("1-4.qcow2", "7-7.qcow2", "8.qcow2")) == "1-8.qcow2"


def test_state_that_has_only_part_of_a_run_keeps_its_layers() -> None:
    layers_now = ("1.qcow2", "2.qcow2", "3.qcow2")
    former = Revision(2, 0, ("1.qcow2", "2.qcow2"))
    volume = replace(saved(), layers=layers_now, revisions=(former,), number=3)
    merged = volume.merged(("2.qcow2", "3.qcow2"), "2-3.qcow2")
    assert merged.layers == ("1.qcow2", "2-3.qcow2")
    assert merged.revisions == (former,)
    assert merged.files == {"1.qcow2", "2.qcow2", "2-3.qcow2", "4.qcow2"}


class _Kept:
    """A layer held as patterns by cluster."""

    def __init__(self, content: dict[int, int]) -> None:
        self._content = content

    def cluster(self, index: int) -> Mark | bytes:
        pattern = self._content.get(index)
        if pattern is None:
            return Mark.ABSENT
        return bytes([pattern]) * CLUSTER if pattern else Mark.ZERO


class _Sparse:
    """A layer with data in some clusters, most of each a hole in what is written."""

    def __init__(self, present: set[int]) -> None:
        self._present = present

    def cluster(self, index: int) -> Mark | bytes:
        return b"\7" * 512 if index in self._present else Mark.ABSENT


def _shown(found: Mark | bytes) -> bytes:
    return bytes(CLUSTER) if isinstance(found, Mark) else found
