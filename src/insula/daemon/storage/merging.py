"""One layer made of several, without QEMU: its content was written by machines; all calls block."""

import os
import sys
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise, takewhile
from pathlib import Path

from insula.daemon.model.volume import Volume
from insula.daemon.storage import files, qcow2
from insula.daemon.storage.errors import DamagedImageError, space, told
from insula.daemon.storage.places import Places
from insula.daemon.storage.reader import CLUSTER, L2_ENTRIES, Mark, Qcow2Reader, RawReader, Reader
from insula.protocol.errors import ProtocolError

_BASE_WEIGHT = 2  # a base this many times heavier than the rest is not written again


def merge(places: Places, volume: Volume, longest: int) -> Volume:
    """The volume with some of its layers made one; unchanged if it has at most longest."""
    if len(volume.layers) <= longest:
        return volume
    where = places.of(volume)
    with told(where), places.directory(volume) as parent, ExitStack() as opened:
        run = _run(parent, volume)
        if len(run) < 2:
            return volume
        name = merged_name(run)
        readers: list[Reader] = []
        weight = 0
        for layer in run:
            descriptor = files.open_file(parent, layer)
            opened.callback(os.close, descriptor)
            weight += os.fstat(descriptor).st_blocks * 512
            readers.append(_reader(where / layer, descriptor))
        with space(where, weight), files.new_file(parent, name) as target:
            try:
                write_merged(target, readers, volume.size, blank_below=run[0] == volume.layers[0])
            except ProtocolError as error:
                raise DamagedImageError(where / name, str(error)) from error
    return volume.merged(run, name)


def merged_name(run: Sequence[str]) -> str:
    """File name of what a run of layers becomes: numbers of its first and its last."""
    first = run[0].partition(".")[0].partition("-")[0]
    last = run[-1].partition(".")[0].rpartition("-")[2]
    return f"{first}-{last}.qcow2"


def write_merged(target: int, readers: Sequence[Reader], size: int, *, blank_below: bool) -> None:
    """Write an image of size bytes with what readers, lowest first, show together.

    blank_below: nothing lies under the lowest, so that zeros need no mark.
    """
    writer = _Writer(target)
    for index in range(-(-size // CLUSTER)):
        for reader in reversed(readers):
            found = reader.cluster(index)
            if found is not Mark.ABSENT:
                break
        if isinstance(found, bytes):
            writer.data(index, found)
        elif found is Mark.ZERO and not blank_below:
            writer.zero(index)
    writer.finish(size)


class _Writer:
    """Appends clusters to a new image; its tables follow at the end."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._next = qcow2.FIRST_FREE
        self._tables: dict[int, array[int]] = {}

    def data(self, index: int, content: bytes) -> None:
        self._set(index, self._append(content) | qcow2.COPIED)

    def zero(self, index: int) -> None:
        self._set(index, 1)

    def finish(self, size: int) -> None:
        l1 = array("Q", bytes(CLUSTER))
        for number, table in self._tables.items():
            l1[number] = self._append(_big_endian(table)) | qcow2.COPIED
        qcow2.write_tables(self._target, size, self._next, _big_endian(l1))

    def _set(self, index: int, entry: int) -> None:
        number, place = divmod(index, L2_ENTRIES)
        if number not in self._tables:
            self._tables[number] = array("Q", bytes(CLUSTER))
        self._tables[number][place] = entry

    def _append(self, content: bytes) -> int:
        address = self._next * CLUSTER
        written = 0
        while written < len(content):
            written += os.pwrite(self._target, content[written:], address + written)
        self._next += 1
        return address


def _run(parent: int, volume: Volume) -> tuple[str, ...]:
    """The longest run of layers that every state which is kept has whole or not at all."""
    cuts = {0, len(volume.layers)}
    for revision in volume.revisions:
        cuts.add(_common(revision.layers, volume.layers))
    places = sorted(cuts)
    start, end = max(pairwise(places), key=lambda pair: pair[1] - pair[0])
    run = volume.layers[start:end]
    if start == 0:
        weights = [os.stat(name, dir_fd=parent).st_blocks for name in run]
        if weights[0] > _BASE_WEIGHT * sum(weights[1:]):
            return run[1:]
    return run


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many layers two states begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _reader(path: Path, descriptor: int) -> Reader:
    if path.suffix == ".raw":
        return RawReader(descriptor)
    try:
        return Qcow2Reader(descriptor)
    except ProtocolError as error:
        raise DamagedImageError(path, str(error)) from error


def _big_endian(entries: "array[int]") -> bytes:
    swapped = array("Q", entries)
    if sys.byteorder == "little":
        swapped.byteswap()
    return swapped.tobytes()
