"""Volumes between starts: what is kept, what is shared and what is removed."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from insula.daemon.model.volume import Volume
from insula.daemon.storage.errors import (
    DamagedImageError,
    MissingFileError,
    NoSuchRevisionError,
    StorageError,
    VolumeInUseError,
)
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.volumes import Storage

from .conftest import SIZE, attached, saved, snapshot, written
from .qemu import disk_io, run


async def test_revert_brings_back_the_state_before_the_last_stop(storage: Storage) -> None:
    private = await written(storage, saved(), "write -P 1 0 1M")
    private = await written(storage, private, "write -P 2 0 1M")
    assert [revision.number for revision in private.revisions] == [1]
    private = await storage.revert(private, 1)
    async with attached(storage, Plan(volume=private)) as disk:
        disk_io(disk, "read -P 1 0 1M")


async def test_revert_can_itself_be_reverted(storage: Storage) -> None:
    private = await written(storage, saved(), "write -P 1 0 1M")
    private = await written(storage, private, "write -P 2 0 1M")
    private = await storage.revert(private, 1)
    await storage.prune(private)
    private = await storage.revert(private, private.revisions[-1].number)
    async with attached(storage, Plan(volume=private)) as disk:
        disk_io(disk, "read -P 2 0 1M")


async def test_revert_refuses_unknown_revisions_and_unsaved_work(storage: Storage) -> None:
    private = await written(storage, saved(), "write -P 1 0 1M")
    with pytest.raises(NoSuchRevisionError, match="no revision 7"):
        await storage.revert(private, 7)
    async with attached(storage, Plan(volume=private)):
        with pytest.raises(VolumeInUseError):
            await storage.revert(private, private.revisions[-1].number)


async def test_commit_without_a_start_changes_nothing(storage: Storage) -> None:
    private = saved()
    assert await storage.commit(private) == private
    private = await written(storage, private, "write -P 1 0 1M")
    assert await storage.commit(private) == private


async def test_prune_removes_only_what_no_state_names(storage: Storage, tmp_path: Path) -> None:
    private = replace(saved(), revisions_to_keep=0)
    for pattern in (1, 2):
        private = await written(storage, private, f"write -P {pattern} 0 1M")
    where = tmp_path / "home" / "volumes" / str(private.owner) / "private"
    (where / "9.qcow2.new").touch()
    async with attached(storage, Plan(volume=private)) as disk:
        removed = await storage.prune(private)
        assert removed == (f"{private.owner}/private/9.qcow2.new",)
        disk_io(disk, "read -P 2 0 1M")
    assert {path.name for path in where.iterdir()} == {"1.qcow2", "2.qcow2", "3.qcow2"}


async def test_imported_image_is_shared_not_copied_and_bounds_the_size(
    storage: Storage, tmp_path: Path
) -> None:
    image = tmp_path / "home" / "built.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "128M"])
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 6 100M 1M", str(image)])
    root = await storage.import_image(saved("root"), image, "qcow2")
    assert root.size == 2 * SIZE
    assert image.stat().st_nlink == 2
    before = image.read_bytes()
    root = await written(storage, root, "read -P 6 100M 1M", "write -P 7 100M 1M")
    assert image.read_bytes() == before
    image.unlink()
    async with attached(storage, Plan(volume=snapshot(size=root.size), source=root)) as disk:
        disk_io(disk, "read -P 7 100M 1M")


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM])
async def test_an_image_that_cannot_be_linked_is_copied(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """EPERM: of a file that somebody else owns, as in a cache of templates for several users."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(reason, os.strerror(reason))

    image = tmp_path / "home" / "built.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "128M"])
    monkeypatch.setattr(os, "link", refuse)
    root = await storage.import_image(saved("root"), image, "qcow2")
    assert (root.size, image.stat().st_nlink) == (2 * SIZE, 1)


@pytest.mark.parametrize("how", ["link", "copy"])
async def test_raw_image_becomes_the_base_of_a_volume(
    storage: Storage, tmp_path: Path, how: str
) -> None:
    image = tmp_path / "root.raw"
    with image.open("wb") as file:
        file.truncate(SIZE)
        file.seek(1 << 20)
        file.write(b"\x08" * (1 << 20))
    root = await storage.import_image(
        saved("root"), image, "raw", "copy" if how == "copy" else "link"
    )
    async with attached(storage, Plan(volume=root)) as disk:
        disk_io(disk, "read -P 0 0 1M", "read -P 8 1M 1M", "write -P 9 1M 64k", "read -P 9 1M 64k")
    assert image.read_bytes()[1 << 20 : 2 << 20] == b"\x08" * (1 << 20)
    assert await storage.usage(root) < 4 << 20


async def test_image_that_needs_another_file_is_refused(storage: Storage, tmp_path: Path) -> None:
    base, image = tmp_path / "base.qcow2", tmp_path / "image.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "64M"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(image)])
    with pytest.raises(DamagedImageError, match="names a backing file"):
        await storage.import_image(saved("root"), image, "qcow2")
    data = tmp_path / "data.raw"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", str(image), "1M"]
    run(words)
    with pytest.raises(DamagedImageError, match="incompatible features 0x4"):
        await storage.import_image(saved("root"), image, "qcow2")
    with pytest.raises(MissingFileError):
        await storage.import_image(saved("root"), tmp_path / "none", "qcow2")


async def test_import_that_was_never_recorded_is_not_taken_for_unsaved_work(
    storage: Storage, tmp_path: Path
) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(b"\x08" * (1 << 20))
    root = await written(storage, saved("root"), "write -P 1 0 1M")
    await storage.import_image(root, image, "raw")
    root = await written(storage, root, "read -P 1 0 1M", "write -P 2 0 64k")
    root = await written(storage, root, "read -P 2 0 64k", "read -P 1 64k 64k")


async def test_clone_shares_blocks_and_then_goes_its_own_way(storage: Storage) -> None:
    source = await written(storage, saved(), "write -P 1 0 4M")
    source = await written(storage, source, "write -P 2 0 1M")
    target = await storage.clone(source, saved())
    target = await written(storage, target, "read -P 2 0 1M", "read -P 1 1M 3M", "write -P 3 0 1M")
    source = await written(storage, source, "read -P 2 0 1M")
    await storage.remove(source.owner)
    async with attached(storage, Plan(volume=target)) as disk:
        disk_io(disk, "read -P 3 0 1M", "read -P 1 1M 3M")


async def test_clone_into_a_volume_that_was_used_keeps_its_former_state(storage: Storage) -> None:
    source = await written(storage, saved(), "write -P 1 0 1M")
    target = await written(storage, saved(), "write -P 2 0 1M")
    target = await storage.clone(source, target)
    target = await written(storage, target, "read -P 1 0 1M")
    blank = await storage.clone(saved(), target)
    async with attached(storage, Plan(volume=blank)) as disk:
        disk_io(disk, "read -P 0 0 1M")
    with pytest.raises(VolumeInUseError):
        await storage.clone(source, blank)


async def test_volume_cannot_shrink_nor_get_an_odd_size(storage: Storage) -> None:
    with pytest.raises(StorageError, match="cannot become smaller"):
        await storage.resize(saved(), SIZE // 2)
    with pytest.raises(StorageError, match="cannot have"):
        await storage.resize(saved(), SIZE + 1)


async def test_removed_qube_leaves_nothing_and_removing_it_again_is_fine(
    storage: Storage, tmp_path: Path
) -> None:
    private = await written(storage, saved(), "write -P 1 0 1M")
    assert await storage.usage(private) > 1 << 20
    for _ in range(2):
        await storage.remove(private.owner)
    assert await storage.usage(private) == 0
    assert list((tmp_path / "home" / "volumes").iterdir()) == []


async def test_sweep_removes_what_is_not_named_and_keeps_unsaved_work(
    storage: Storage, tmp_path: Path
) -> None:
    kept = await written(storage, saved(), "write -P 1 0 1M")
    gone = await written(storage, saved(), "write -P 1 0 1M")
    async with attached(storage, Plan(volume=kept)) as disk:
        disk_io(disk, "write -P 2 0 1M", "flush")
    volumes = tmp_path / "home" / "volumes"
    (volumes / str(kept.owner) / "private" / "7.qcow2").touch()
    (volumes / str(kept.owner) / "other").mkdir()
    (volumes / "stray").touch()
    (tmp_path / "home" / "volatile" / "0123").touch()
    removed = await storage.sweep([kept])
    assert set(removed) == {
        "stray",
        str(gone.owner),
        f"{kept.owner}/other",
        f"{kept.owner}/private/7.qcow2",
    }
    assert list((tmp_path / "home" / "volatile").iterdir()) == []
    async with attached(storage, Plan(volume=kept)) as disk:
        disk_io(disk, "read -P 2 0 1M")
    assert await storage.sweep([kept]) == ()


async def test_disposable_leaves_no_file(storage: Storage, tmp_path: Path) -> None:
    private = await written(storage, saved(), "write -P 1 0 1M")
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    plans = [
        Plan(
            volume=Volume(owner=uuid4(), name="private", size=SIZE, snap_on_start=True),
            source=private,
        ),
        Plan(volume=Volume(owner=uuid4(), name="volatile", size=SIZE)),
    ]
    await storage.create(*(plan.volume for plan in plans))
    for plan in plans:
        async with attached(storage, plan) as disk:
            disk_io(disk, "write -P 2 0 1M", "flush")
            assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
    async with attached(storage, Plan(volume=private)) as disk:
        disk_io(disk, "read -P 1 0 1M")
