"""Memory images: stored without their zeros, loaded sealed, the same all the while."""

import mmap
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.daemon.engine.qemu import images

PAGE = 4096
PAGES = 24


@given(used=st.dictionaries(st.integers(0, PAGES - 1), st.sampled_from([b"\0", b"x"])))
def test_an_image_comes_back_as_it_was(used: dict[int, bytes]) -> None:
    """used: pages that were touched, with zeros or with something."""
    memory = images.blank("memory", PAGES * PAGE)
    for page, byte in used.items():
        os.pwrite(memory, byte * PAGE, page * PAGE)
    content = os.pread(memory, PAGES * PAGE, 0)
    path = Path("/dev/shm", f"insula-test-image-{os.getpid()}")
    path.unlink(missing_ok=True)
    try:
        images.store(memory, path)
        written = sum(byte != b"\0" for byte in used.values())
        assert path.stat().st_blocks * 512 == written * PAGE
        loaded = images.load_sealed(path)
    finally:
        path.unlink()
        os.close(memory)
    assert os.pread(loaded, PAGES * PAGE, 0) == content
    os.close(loaded)


def test_a_sealed_image_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"x" * PAGE)
    image = images.load_sealed(tmp_path / "ram")
    try:
        with pytest.raises(PermissionError):
            os.pwrite(image, b"y", 0)
        for size in (0, 2 * PAGE):
            with pytest.raises(PermissionError):
                os.ftruncate(image, size)
        with pytest.raises(PermissionError):
            mmap.mmap(image, PAGE, flags=mmap.MAP_SHARED)
        with mmap.mmap(image, PAGE, flags=mmap.MAP_PRIVATE) as mapped:
            mapped[0:1] = b"y"
        assert os.pread(image, PAGE, 0) == b"x" * PAGE
    finally:
        os.close(image)


def test_pages_that_are_held_for_a_moment_delay_the_seals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel itself holds some while it moves them; here a mapping does."""
    (tmp_path / "ram").write_bytes(b"x" * PAGE)
    copy = images.copy_sparse
    held: list[mmap.mmap] = []

    def copy_and_hold(source: int, target: int) -> None:
        copy(source, target)
        held.append(mmap.mmap(target, PAGE, flags=mmap.MAP_SHARED))
        threading.Timer(0.2, held[0].close).start()

    monkeypatch.setattr(images, "copy_sparse", copy_and_hold)
    image = images.load_sealed(tmp_path / "ram")
    try:
        assert held[0].closed
        with pytest.raises(PermissionError):
            os.pwrite(image, b"y", 0)
    finally:
        os.close(image)
