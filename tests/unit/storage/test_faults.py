"""Crashes between any two steps, and a full disk."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from insula.daemon.model.volume import Revision, Volume
from insula.daemon.storage import merging, upkeep
from insula.daemon.storage.attaching import attach, close
from insula.daemon.storage.places import Places
from insula.daemon.storage.plan import Plan

from .conftest import saved
from .qemu import disk_io

CRASHED = 9
_STEPS = ("fsync", "rename", "link", "unlink", "mkdir", "open", "pwrite", "ftruncate", "rmdir")
Change = Callable[[Places, Volume], Volume]


def _start(places: Places, volume: Volume) -> Volume:
    close(attach(places, [Plan(volume=volume)]))
    return volume


def _import(places: Places, volume: Volume) -> Volume:
    return upkeep.import_image(places, volume, places.home / "image.raw", "raw", "copy")


def _clone(places: Places, volume: Volume) -> Volume:
    return upkeep.clone(places, _other(volume), volume)


def _stream(places: Places, volume: Volume) -> Volume:
    """What another process writes comes to be the volume's content."""
    content = (places.home / "image.raw").read_bytes()
    path = upkeep.begin_import(places, volume, len(content))
    with path.open("r+b") as file:
        file.write(content)
    return upkeep.end_import(places, volume, len(content))


def _abandoned(places: Places, volume: Volume) -> Volume:
    """An import that is begun and never ended."""
    with upkeep.begin_import(places, volume, 1 << 20).open("r+b") as file:
        file.write(b"half")
    return volume


def _revert(places: Places, volume: Volume) -> Volume:
    former = Revision(1, 0, volume.layers[:1])
    return upkeep.revert(places, replace(volume, revisions=(former,)), former.number)


def _merge(places: Places, volume: Volume) -> Volume:
    return merging.merge(places, volume, 1)


def _prune(places: Places, volume: Volume) -> Volume:
    upkeep.prune(places, volume)
    return volume


def _resume(places: Places, volume: Volume) -> Volume:
    return _start(places, replace(volume, size=2 * volume.size))


CHANGES: dict[str, tuple[Change, bool, str]] = {
    # How it is changed, whether with unsaved work, what must be seen once the change is recorded.
    "start": (_start, False, "read -P 3 0 1M"),
    "start again, larger": (_resume, True, "read -P 4 0 1M"),
    "commit": (upkeep.commit, True, "read -P 4 0 1M"),
    "import": (_import, False, "read -P 8 0 1M"),
    "stream": (_stream, False, "read -P 8 0 1M"),
    "abandoned": (_abandoned, False, "read -P 3 0 1M"),
    "clear": (upkeep.clear, False, "read -P 0 0 1M"),
    "revert": (_revert, False, "read -P 1 0 1M"),
    "clone": (_clone, False, "read -P 3 0 1M"),
    "merge": (_merge, False, "read -P 3 0 1M"),
    "prune": (_prune, True, "read -P 4 0 1M"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_volume_is_as_before_or_as_after_whatever_step_a_crash_follows(
    name: str, tmp_path: Path
) -> None:
    change, dirty, seen_after = CHANGES[name]
    places, volume = _prepared(tmp_path / "prepared", dirty=dirty)
    seen_before = "read -P 4 0 1M" if dirty else "read -P 3 0 1M"
    for crash_at in range(1, 100):
        home = tmp_path / str(crash_at)
        shutil.copytree(places.home, home)
        recorded = _in_child(change, Places(home), volume, crash_at)
        _must_hold(Places(home), recorded or volume, seen_after if recorded else seen_before)
        shutil.rmtree(home)
        if recorded is not None:
            assert crash_at > 1, "nothing was interrupted"
            return
    pytest.fail("the change never came to its end")


def test_file_is_durable_before_its_name_is_and_the_name_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no killed process shows: a power cut keeps only what was flushed."""
    places, volume = _prepared(tmp_path, dirty=False)
    steps: list[str] = []
    flush, rename = os.fsync, os.rename

    def flushed(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def renamed(source: str, target: str, **parents: int) -> None:
        steps.append("rename")
        rename(source, target, **parents)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    for change in (_start, _import, _merge):
        steps.clear()
        change(places, volume if change is not _import else _other(volume))
        assert steps[:3] == ["file", "rename", "directory"]
    steps.clear()
    upkeep.commit(places, volume)
    assert steps == ["file", "directory"]


def test_removal_that_a_crash_cut_short_is_finished_at_the_next_start(tmp_path: Path) -> None:
    places, volume = _prepared(tmp_path / "prepared", dirty=True)
    for crash_at in range(1, 100):
        home = tmp_path / str(crash_at)
        shutil.copytree(places.home, home)

        def remove(where: Places, gone: Volume) -> Volume:
            upkeep.remove(where, gone.owner)
            return gone

        done = _in_child(remove, Places(home), volume, crash_at)
        upkeep.sweep(Places(home), ())
        assert not (home / "volumes" / str(volume.owner)).exists()
        if done is not None:
            assert crash_at > 1
            return
    pytest.fail("the removal never came to its end")


def test_full_disk_is_named_with_what_is_free_and_what_is_needed(tmp_path: Path) -> None:
    told = _on_full_disk(tmp_path, "attach")
    assert told["error"] == "NoSpaceError"
    assert f"no space left in {tmp_path / 'small'}/home" in told["message"]
    assert "0 MiB free, at least 1 MiB needed" in told["message"]
    assert told["free"] < told["needed"] <= 1 << 20
    assert told["left"] == []


@pytest.mark.parametrize("what", ["private", "import", "merge", "kernel"])
def test_full_disk_leaves_the_volume_as_it_was(tmp_path: Path, what: str) -> None:
    told = _on_full_disk(tmp_path, what)
    assert told["error"] == "NoSpaceError"
    assert told["left"] == []


def test_an_import_that_finds_no_space_leaves_nothing(tmp_path: Path) -> None:
    told = _on_full_disk(tmp_path, "stream")
    assert told["error"] == "ENOSPC"
    assert told["left"] == []


def test_qube_can_be_removed_with_no_byte_free(tmp_path: Path) -> None:
    told = _on_full_disk(tmp_path, "remove")
    assert told["error"] is None
    assert told["free"] == 0
    assert told["left"] == []


def _prepared(home: Path, *, dirty: bool) -> tuple[Places, Volume]:
    """A volume of two layers showing pattern 3, or 4 in unsaved work; another that it may clone."""
    places = Places(home)
    upkeep.prepare(places)
    (home / "image.raw").write_bytes(b"\x08" * (1 << 20))
    volume = replace(saved(), revisions_to_keep=0)
    upkeep.create(places, (volume,))
    for pattern in (1, 2, 3):
        _write(places, volume, pattern)
        volume = upkeep.commit(places, volume)
    other = upkeep.clone(places, volume, _blank_other(volume))
    assert other.layers == _other(volume).layers
    if dirty:
        _write(places, volume, 4)
    return places, volume


def _blank_other(volume: Volume) -> Volume:
    return replace(volume, name="other", layers=(), number=0, committed=0)


def _other(volume: Volume) -> Volume:
    return replace(
        _blank_other(volume),
        layers=("1-1.qcow2", "2-2.qcow2", "3-3.qcow2"),
        number=3,
        committed=volume.committed,
    )


def _write(places: Places, volume: Volume, pattern: int) -> None:
    disks = attach(places, [Plan(volume=volume)])
    disk_io(disks[0], f"write -P {pattern} 0 1M", "flush")
    close(disks)


def _must_hold(places: Places, volume: Volume, seen: str) -> None:
    """After a restart nothing is left over, and a start shows what it must."""
    upkeep.sweep(places, (volume, _other(volume)))
    where = places.of(volume)
    assert {path.name for path in where.iterdir()} <= volume.files
    disks = attach(places, [Plan(volume=volume)])
    disk_io(disks[0], seen)
    close(disks)


def _in_child(change: Change, places: Places, volume: Volume, crash_at: int) -> Volume | None:
    """The volume as a child process changed it; None if it died before its n-th step on disk."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _crash_before(crash_at)
            changed = change(places, volume)
            os.write(writing, json.dumps(changed.to_json()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        told = answer.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, CRASHED)
    return Volume.from_json(json.loads(told)) if code == 0 else None


def _crash_before(step: int) -> None:
    """From here on, end the process like a power cut before its n-th step on disk."""
    taken = 0

    def dying(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal taken
            taken += 1
            if taken == step:
                os._exit(CRASHED)
            return function(*arguments, **named)

        return call

    for name in _STEPS:
        setattr(os, name, dying(getattr(os, name)))


def _on_full_disk(tmp_path: Path, what: str) -> dict[str, Any]:
    """What came of an operation on a file system of one MiB, in a namespace of its own."""
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    argv += [str(small), sys.executable, "-m", f"{__package__}.full_disk", str(small), what]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded
