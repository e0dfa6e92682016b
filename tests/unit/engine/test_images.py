"""Memory images: what was not zero comes back, the rest takes no room, and none can be changed."""

import mmap
import os
from pathlib import Path

import pytest

from insula.daemon.engine.qemu import images

PAGE = 4096
SIZE = 64 * PAGE


@pytest.fixture
def written() -> bytes:
    """Memory with data, pages of zeros that were written, and holes."""
    content = bytearray(SIZE)
    content[3 * PAGE : 5 * PAGE] = os.urandom(2 * PAGE)
    content[9 * PAGE] = 1
    content[SIZE - 1] = 2
    return bytes(content)


def stored(content: bytes, path: Path) -> None:
    memory = images.blank("test", SIZE)
    try:
        for page in range(0, SIZE - 8 * PAGE, PAGE):
            os.pwrite(memory, content[page : page + PAGE], page)
        os.pwrite(memory, content[SIZE - PAGE :], SIZE - PAGE)
        images.store(memory, path)
    finally:
        os.close(memory)


def test_an_image_comes_back_as_it_was(written: bytes, tmp_path: Path) -> None:
    stored(written, tmp_path / "ram")
    image = images.load_sealed(tmp_path / "ram")
    try:
        assert os.pread(image, SIZE, 0) == written
    finally:
        os.close(image)


def test_zeros_take_no_room(written: bytes, tmp_path: Path) -> None:
    stored(written, tmp_path / "ram")
    found = (tmp_path / "ram").stat()
    assert found.st_size == SIZE
    assert found.st_blocks * 512 <= 4 * PAGE


def test_a_sealed_image_cannot_be_changed(written: bytes, tmp_path: Path) -> None:
    stored(written, tmp_path / "ram")
    image = images.load_sealed(tmp_path / "ram")
    try:
        with pytest.raises(PermissionError):
            os.pwrite(image, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(image, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(image, SIZE + PAGE)
        with pytest.raises(PermissionError):
            mmap.mmap(image, SIZE, flags=mmap.MAP_SHARED)
        with mmap.mmap(image, SIZE, flags=mmap.MAP_PRIVATE) as mapped:
            mapped[0] = 7
        assert os.pread(image, 1, 0) == b"\0"
    finally:
        os.close(image)
