"""From volumes to the disks of one launch: every layer opened anew; all calls block."""

import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

from insula.daemon.model.machine import Disk, Layer, LayerFormat
from insula.daemon.model.volume import Volume
from insula.daemon.storage import files, luks, qcow2
from insula.daemon.storage.errors import DamagedImageError, space, told
from insula.daemon.storage.places import VOLATILE, Places
from insula.daemon.storage.plan import Plan
from insula.protocol.errors import ProtocolError

BLANK_SIZE = 512 << 10  # bytes that a new layer takes, at most


def attach(places: Places, plans: Sequence[Plan]) -> tuple[Disk, ...]:
    """The disks of a launch, their layers open; nothing stays open when one fails."""
    with ExitStack() as undo:
        return _kept(undo, [_attached(places, plan, undo) for plan in plans])


def open_disk(disk: Disk) -> Disk:
    """A disk whose layers are paths alone, with each of them open."""
    with ExitStack() as undo:
        layers = tuple(_opened(layer, undo) for layer in disk.layers)
        return _kept(undo, [replace(disk, layers=layers)])[0]


def close(disks: Iterable[Disk]) -> None:
    """Close the descriptors of disks, which is the end of layers without a name."""
    for disk in disks:
        for layer in disk.layers:
            if layer.fd is not None:
                os.close(layer.fd)


def _kept(undo: ExitStack, disks: list[Disk]) -> tuple[Disk, ...]:
    undo.pop_all()
    return tuple(disks)


def _attached(places: Places, plan: Plan, undo: ExitStack) -> Disk:
    volume = plan.volume
    lower = _state(places, plan.source or volume, undo)
    lower += [_opened(layer, undo) for layer in plan.extra]
    if not volume.rw:
        top = []
    elif volume.save_on_stop:
        top = [_work(places, volume, undo)]
    elif plan.top is not None:
        top = [_named(plan.top, volume.size, undo)]
    else:
        where = places.root((plan.source or volume).pool) / VOLATILE
        top = [_throw_away(where, volume.size, undo)]
    return Disk(volume.name, (*lower, *top), not volume.rw, volume.size)


def _state(places: Places, volume: Volume, undo: ExitStack) -> list[Layer]:
    """The layers of a volume's current state."""
    if not volume.layers:
        return []
    where = places.of(volume)
    layers = []
    with told(where), places.directory(volume) as parent:
        for name in volume.layers:
            with told(where / name):
                descriptor = files.open_file(parent, name)
            undo.callback(os.close, descriptor)
            layers.append(Layer(where / name, _format(name), fd=descriptor))
    return layers


def _work(places: Places, volume: Volume, undo: ExitStack) -> Layer:
    """The layer that a machine writes: a new one, or that of a start which ended unseen."""
    path = places.of(volume) / volume.work
    with (
        told(path),
        space(path.parent, BLANK_SIZE),
        places.directory(volume, create=True) as parent,
    ):
        if not files.exists(parent, volume.work):
            with files.new_file(parent, volume.work) as blank:
                qcow2.write_blank(blank, volume.size)
        descriptor = files.open_file(parent, volume.work, writable=True)
        undo.callback(os.close, descriptor)
        _fit(path, descriptor, volume.size)
    return Layer(path, "qcow2", writable=True, fd=descriptor)


def _fit(path: Path, descriptor: int, size: int) -> None:
    """Check a layer that is to be written; one made before a resize gets the new size."""
    if os.fstat(descriptor).st_nlink != 1:
        raise DamagedImageError(path, "it has further names, so others would see it written")
    try:
        header = qcow2.parse_header(os.pread(descriptor, qcow2.CLUSTER, 0))
    except ProtocolError as error:
        raise DamagedImageError(path, str(error)) from error
    if header.capacity < size:
        raise DamagedImageError(path, f"it has no room for {size} bytes")
    if header.size != size:
        os.pwrite(descriptor, struct.pack(">Q", size), qcow2.SIZE_OFFSET)
        os.fsync(descriptor)


def _named(path: Path, size: int, undo: ExitStack) -> Layer:
    with told(path), space(path.parent, BLANK_SIZE), files.directory(path.parent) as parent:
        with files.new_file(parent, path.name) as blank:
            qcow2.write_blank(blank, size)
        descriptor = files.open_file(parent, path.name, writable=True)
        undo.callback(os.close, descriptor)
    return Layer(path, "qcow2", writable=True, fd=descriptor)


def _throw_away(place: Path, size: int, undo: ExitStack) -> Layer:
    """A layer without a name, under a key that nothing but this Layer holds."""
    passphrase = luks.new_passphrase()
    with told(place), space(place, BLANK_SIZE):
        descriptor = files.open_unnamed(place)
        undo.callback(os.close, descriptor)
        qcow2.write_blank(descriptor, size, passphrase)
    return Layer(place, "qcow2", writable=True, key=passphrase, fd=descriptor)


def _opened(layer: Layer, undo: ExitStack) -> Layer:
    if layer.fd is not None:
        raise ValueError(f"layer {layer.path} is already open")
    with told(layer.path):
        descriptor = files.open_path(layer.path, writable=layer.writable)
    undo.callback(os.close, descriptor)
    return replace(layer, fd=descriptor)


def _format(name: str) -> LayerFormat:
    return cast(LayerFormat, name.rpartition(".")[2])
