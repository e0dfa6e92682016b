"""The pixel region: pages shared with the viewer, and which of them hold a window's image."""

import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.limits import BYTES_PER_PIXEL, PAGE_SIZE
from insula.protocol.gui.pages import pages_needed

_IOMEM = Path("/proc/iomem")
_UNBIND = Path("/sys/bus/nd/drivers/nd_pmem/unbind")
_RESOURCE = "Persistent Memory"


class Buffer(NamedTuple):
    """A run of pages that holds an image of width * height pixels."""

    first: int
    pages: int
    width: int
    height: int

    @property
    def references(self) -> tuple[int, ...]:
        """The page numbers, as WINDOW_DUMP carries them."""
        return tuple(range(self.first, self.first + self.pages))


class Pages:
    """Which runs of pages are free; first fit."""

    def __init__(self, count: int) -> None:
        self._free = [(0, count)]  # (first, count), in order and never adjacent

    def take(self, count: int) -> int | None:
        """The first page of a run of count pages; None when there is none."""
        for at, (first, size) in enumerate(self._free):
            if size >= count:
                self._free[at : at + 1] = [(first + count, size - count)] if size > count else []
                return first
        return None

    def give_back(self, first: int, count: int) -> None:
        """Free a run that take returned."""
        self._free.append((first, count))
        self._free.sort()
        merged: list[tuple[int, int]] = []
        for start, size in self._free:
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((start, size))
        self._free = merged

    @property
    def free(self) -> int:
        """How many pages are free."""
        return sum(size for _, size in self._free)


class Region:
    """The pages, mapped, with what is free among them."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._memory = memoryview(mapped)
        self._size = len(mapped)
        self.pages = Pages(self._size // PAGE_SIZE)

    @classmethod
    def open(cls, path: str | None) -> "Region":
        """Map the file at path, or without one this machine's persistent memory.

        Raises:
            OSError: there is no such memory, or it may not be mapped.
        """
        if path is not None:
            return cls(_mapped(path, 0, Path(path).stat().st_size))
        start, size = persistent_memory(_IOMEM.read_text(encoding="ascii"))
        with suppress(OSError):  # not bound to its driver: nothing to undo
            _UNBIND.write_text("namespace0.0", encoding="ascii")
        return cls(_mapped("/dev/mem", start, size))

    def forget_buffers(self) -> None:
        """Free every page."""
        self.pages = Pages(self._size // PAGE_SIZE)

    def allocate(self, width: int, height: int) -> Buffer | None:
        """A buffer for an image; None when the region is full."""
        count = pages_needed(width, height)
        first = self.pages.take(count)
        return None if first is None else Buffer(first, count, width, height)

    def release(self, buffer: Buffer) -> None:
        """Free a buffer that allocate returned."""
        self.pages.give_back(buffer.first, buffer.pages)

    def write(self, buffer: Buffer, part: Rect, pixels: memoryview) -> None:
        """Put a part of the image, whose pixels are tightly packed."""
        stride = buffer.width * BYTES_PER_PIXEL
        row = part.width * BYTES_PER_PIXEL
        at = buffer.first * PAGE_SIZE + part.y * stride + part.x * BYTES_PER_PIXEL
        if row == stride:
            self._memory[at : at + row * part.height] = pixels[: row * part.height]
            return
        for start in range(0, row * part.height, row):
            self._memory[at : at + row] = pixels[start : start + row]
            at += stride


def persistent_memory(iomem: str) -> tuple[int, int]:
    """Address and size of the first persistent memory that /proc/iomem lists.

    Raises:
        FileNotFoundError: it lists none.
    """
    for line in iomem.splitlines():
        addresses, _, name = line.partition(" : ")
        if name.startswith(_RESOURCE):
            first, _, last = addresses.strip().partition("-")
            start = int(first, 16)
            return start, int(last, 16) + 1 - start
    raise FileNotFoundError("no persistent memory in /proc/iomem")


def _mapped(path: str, start: int, size: int) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, size, offset=start)
    finally:
        os.close(descriptor)
