"""Disks of a launch, written and read by QEMU itself through the descriptors it would get."""

import asyncio
import fcntl
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import pytest

from insula.daemon.model.machine import Disk, Layer
from insula.daemon.storage.attaching import attach
from insula.daemon.storage.errors import DamagedImageError, MissingFileError
from insula.daemon.storage.places import Places
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.volumes import Storage, close

from .conftest import SIZE, attached, saved, snapshot, volatile
from .qemu import check, disk_io, machine_io

KEY_LENGTH = 64  # hexadecimal digits


async def test_private_volume_is_blank_at_first_and_keeps_what_was_written(
    storage: Storage,
) -> None:
    private = saved()
    async with attached(storage, Plan(volume=private)) as disk:
        assert (disk.serial, disk.read_only, disk.size) == ("private", False, SIZE)
        disk_io(disk, "read -P 0 0 64M", "write -P 7 1M 1M", "flush")
        check(disk)
    private = await storage.commit(private)
    async with attached(storage, Plan(volume=private)) as disk:
        assert [layer.writable for layer in disk.layers] == [False, True]
        disk_io(disk, "read -P 7 1M 1M", "read -P 0 2M 1M")


async def test_unsaved_work_of_a_start_that_ended_unseen_is_continued(storage: Storage) -> None:
    private = saved()
    async with attached(storage, Plan(volume=private)) as disk:
        disk_io(disk, "write -P 7 1M 1M", "flush")
    async with attached(storage, Plan(volume=private)) as disk:
        disk_io(disk, "read -P 7 1M 1M")
        assert len(disk.layers) == 1


async def test_app_qube_sees_its_template_and_cannot_change_it(storage: Storage) -> None:
    template = saved("root")
    async with attached(storage, Plan(volume=template)) as disk:
        disk_io(disk, "write -P 1 0 4M", "flush")
    template = await storage.commit(template)
    before = disk.layers[0].path.read_bytes()
    async with attached(storage, Plan(volume=snapshot(), source=template)) as disk:
        disk_io(disk, "read -P 1 0 4M", "write -P 2 0 1M", "read -P 2 0 1M", "read -P 1 1M 3M")
        check(disk)
    assert disk.layers[0].path.read_bytes() == before
    async with attached(storage, Plan(volume=snapshot(), source=template)) as disk:
        disk_io(disk, "read -P 1 0 4M")


async def test_app_qube_sees_a_template_change_at_its_next_start_only(storage: Storage) -> None:
    template = saved("root")
    async with (
        attached(storage, Plan(volume=template)) as writing,
        attached(storage, Plan(volume=snapshot(), source=template)) as before,
    ):
        disk_io(writing, "write -P 1 0 1M", "flush")
        disk_io(before, "read -P 0 0 1M")
        template = await storage.commit(template)
        disk_io(before, "read -P 0 0 1M")
    async with attached(storage, Plan(volume=snapshot(), source=template)) as after:
        disk_io(after, "read -P 1 0 1M")


async def test_frozen_layer_of_a_golden_snapshot_lies_over_the_template(
    storage: Storage, tmp_path: Path
) -> None:
    template = saved("root")
    async with attached(storage, Plan(volume=template)) as disk:
        disk_io(disk, "write -P 1 0 2M", "flush")
    template = await storage.commit(template)
    golden = tmp_path / "root.qcow2"
    booted = Plan(volume=snapshot(), source=template, top=golden)
    async with attached(storage, booted) as disk:
        assert disk.layers[-1].key is None
        disk_io(disk, "read -P 1 0 2M", "write -P 2 0 1M", "flush")
    cloned = Plan(volume=snapshot(), source=template, extra=(Layer(golden, "qcow2"),))
    async with attached(storage, cloned) as disk:
        disk_io(disk, "read -P 2 0 1M", "read -P 1 1M 1M", "write -P 3 0 2M", "read -P 3 0 2M")
        assert [layer.writable for layer in disk.layers] == [False, False, True]


async def test_whole_qemu_uses_a_throw_away_layer_from_a_descriptor_set(storage: Storage) -> None:
    template = saved("root")
    async with attached(storage, Plan(volume=template)) as disk:
        disk_io(disk, "write -P 1 0 2M", "flush")
    template = await storage.commit(template)
    async with attached(storage, Plan(volume=snapshot(), source=template)) as disk:
        machine_io(disk, "read -P 1 0 2M", "write -P 5 1M 2M", "flush", "read -P 5 1M 2M")
        disk_io(disk, "read -P 1 0 1M", "read -P 5 1M 2M")  # What it wrote is in that file.


async def test_volatile_volume_is_blank_at_each_start(storage: Storage) -> None:
    plan = Plan(volume=volatile())
    for _ in range(2):
        async with attached(storage, plan) as disk:
            disk_io(disk, "read -P 0 0 64M", "write -P 9 0 1M", "read -P 9 0 1M")


async def test_throw_away_data_never_has_a_name_nor_lies_on_disk_in_the_clear(
    storage: Storage, tmp_path: Path
) -> None:
    async with attached(storage, Plan(volume=volatile())) as disk:
        layer = disk.layers[0]
        assert layer.fd is not None
        assert layer.key is not None
        assert len(layer.key) == KEY_LENGTH
        assert layer.key.decode() not in repr(disk)
        disk_io(disk, "write -P 0x5a 0 4M", "flush")
        state = os.fstat(layer.fd)
        assert state.st_nlink == 0
        content = os.pread(layer.fd, state.st_size, 0)
    assert len(content) > 4 << 20
    assert b"\x5a" * 32 not in content
    assert layer.key not in content
    assert bytes.fromhex(layer.key.decode()) not in content
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


async def test_two_layers_share_neither_key_nor_header(storage: Storage) -> None:
    plan = Plan(volume=volatile())
    async with attached(storage, plan) as one, attached(storage, plan) as other:
        assert one.layers[0].key != other.layers[0].key
        headers = {_content(disk) for disk in (one, other)}
        assert len(headers) == 2
        swapped = replace(one, layers=(replace(one.layers[0], key=other.layers[0].key),))
        with pytest.raises(AssertionError, match="Invalid password"):
            disk_io(swapped, "read 0 64k")


async def test_throw_away_layer_works_where_files_cannot_be_unnamed(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)  # As an old kernel sees it.
    async with attached(storage, Plan(volume=volatile())) as disk:
        disk_io(disk, "write -P 9 0 1M", "read -P 9 0 1M")
        assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


async def test_each_start_has_opens_of_its_own(storage: Storage) -> None:
    """Locks on images hold between opens, so one that is shared would defeat them."""
    private = saved()
    async with (
        attached(storage, Plan(volume=private)) as one,
        attached(storage, Plan(volume=private)) as other,
    ):
        descriptors = [disk.layers[-1].fd or -1 for disk in (one, other)]
        fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptors[1], fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_read_only_volume_cannot_be_written(storage: Storage) -> None:
    template = saved("root")
    async with attached(storage, Plan(volume=template)) as disk:
        disk_io(disk, "write -P 1 0 1M", "flush")
    frozen = replace(await storage.commit(template), rw=False)
    async with attached(storage, Plan(volume=frozen)) as disk:
        assert disk.read_only
        disk_io(disk, "read -P 1 0 1M")
        assert disk.layers[0].fd is not None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(disk.layers[0].fd, b"x", 0)


async def test_missing_layer_is_named_and_nothing_stays_open(storage: Storage) -> None:
    template = replace(saved("root"), layers=("1.qcow2",), number=1)
    open_before = _open_descriptors()
    with pytest.raises(MissingFileError, match=str(template.owner)):
        await storage.attach([Plan(volume=volatile()), Plan(volume=snapshot(), source=template)])
    assert _open_descriptors() == open_before


async def test_link_in_place_of_a_layer_is_not_followed(storage: Storage, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 512)
    template = replace(saved("root"), layers=("1.raw",), number=1)
    await storage.create(template)
    where = tmp_path / "home" / "volumes" / str(template.owner) / "root"
    (where / "1.raw").symlink_to(secret)
    with pytest.raises(MissingFileError):
        await storage.attach([Plan(volume=snapshot(), source=template)])
    (where / "2.qcow2").symlink_to(secret)
    with pytest.raises(MissingFileError):
        await storage.attach([Plan(volume=replace(template, layers=()))])
    assert secret.read_bytes() == b"x" * 512


async def test_damaged_work_layer_is_named(storage: Storage) -> None:
    private = saved()
    async with attached(storage, Plan(volume=private)) as disk:
        pass
    disk.layers[-1].path.write_bytes(b"\0" * 65536)
    with pytest.raises(DamagedImageError, match=r"1\.qcow2 is damaged"):
        await storage.attach([Plan(volume=private)])


async def test_work_layer_with_a_second_name_is_refused(storage: Storage, tmp_path: Path) -> None:
    private = saved()
    async with attached(storage, Plan(volume=private)) as disk:
        (tmp_path / "other").hardlink_to(disk.layers[-1].path)
    with pytest.raises(DamagedImageError, match="further names"):
        await storage.attach([Plan(volume=private)])


async def test_volume_grows_at_its_next_start_with_or_without_unsaved_work(
    storage: Storage,
) -> None:
    private = saved()
    for size in (2 * SIZE, 4 * SIZE):
        private = await storage.resize(private, size)
        async with attached(storage, Plan(volume=private)) as disk:
            assert disk.size == size
            disk_io(disk, f"write -P 4 {size - 65536} 64k", f"read -P 4 {size - 65536} 64k")
            check(disk)


async def test_disks_that_nobody_waits_for_any_more_are_closed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    opened: list[Disk] = []

    def slow(places: Places, plans: Sequence[Plan]) -> tuple[Disk, ...]:
        begun.set()
        goes_on.wait(10)
        opened.extend(attach(places, plans))
        return tuple(opened)

    monkeypatch.setattr("insula.daemon.storage.attaching.attach", slow)
    attaching = asyncio.create_task(storage.attach([Plan(volume=volatile())]))
    await asyncio.to_thread(begun.wait, 10)
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    goes_on.set()
    async with asyncio.timeout(10):
        while not opened or _is_open(opened[0]):
            await asyncio.sleep(0)


def test_making_an_encrypted_layer_costs_milliseconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = Places(tmp_path)
    places.volatile.mkdir()
    close(attach(places, [Plan(volume=volatile(10 << 30))]))  # The first pays for the stripes.
    times = []
    for _ in range(20):
        start = perf_counter()
        disks = attach(places, [Plan(volume=volatile(10 << 30))])
        times.append(perf_counter() - start)
        close(disks)
    median = sorted(times)[len(times) // 2]
    with capsys.disabled():
        print(f"\nencrypted layer made in {median * 1e3:.1f} ms (median of {len(times)})")
    assert median < 0.05  # Three times the target, for a machine that is busy with others.


def _content(disk: Disk) -> bytes:
    descriptor = disk.layers[-1].fd
    assert descriptor is not None
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _is_open(disk: Disk) -> bool:
    descriptor = disk.layers[0].fd
    assert descriptor is not None
    try:
        return os.fstat(descriptor).st_nlink == 0
    except OSError:
        return False


def _open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}
