"""The qube's pixel region, read-only, and the images its dumps declare in it."""

import fcntl
import mmap
import os
from typing import NamedTuple

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.geometry import Rect
from insula.protocol.gui.limits import BYTES_PER_PIXEL, PAGE_SIZE
from insula.protocol.gui.messages import WindowDump
from insula.protocol.gui.pages import pages_needed

_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 2


class Image(NamedTuple):
    """A window's buffer: runs of pages as (offset in the image, offset in the region, bytes)."""

    width: int
    height: int
    runs: tuple[tuple[int, int, int], ...]

    @property
    def bounds(self) -> Rect:
        return Rect(0, 0, self.width, self.height)


class Region:
    """Pages that the qube may change at any moment; nothing in them is more than a colour."""

    def __init__(self, descriptor: int) -> None:
        """Map all of it.

        Raises:
            OSError: it is not sealed against shrinking, so that reading could kill us.
        """
        if not fcntl.fcntl(descriptor, _F_GET_SEALS) & _F_SEAL_SHRINK:
            raise OSError("the pixel region is not sealed against shrinking")
        self._pages = os.fstat(descriptor).st_size // PAGE_SIZE
        size = self._pages * PAGE_SIZE
        self._memory = memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ))

    def image(self, dump: WindowDump) -> Image:
        """The image that a dump declares.

        Raises:
            ProtocolError: it names a page outside the region.
        """
        used = dump.references[: pages_needed(dump.width, dump.height)]
        if used and max(used) >= self._pages:
            raise ProtocolError(f"window dump names page {max(used)} of {self._pages}")
        runs: list[tuple[int, int, int]] = []
        for index, page in enumerate(used):
            offset = page * PAGE_SIZE
            if runs and runs[-1][1] + runs[-1][2] == offset:
                start, at, size = runs[-1]
                runs[-1] = (start, at, size + PAGE_SIZE)
            else:
                runs.append((index * PAGE_SIZE, offset, PAGE_SIZE))
        return Image(dump.width, dump.height, tuple(runs))

    def first_pixel(self, image: Image) -> int:
        """The top left pixel of an image that has one."""
        at = image.runs[0][1]
        return int.from_bytes(self._memory[at : at + BYTES_PER_PIXEL], "little")

    def copy(self, image: Image, part: Rect, target: memoryview) -> None:
        """Copy a part of an image, which must lie inside it, tightly packed to target."""
        stride = image.width * BYTES_PER_PIXEL
        row = part.width * BYTES_PER_PIXEL
        start = part.y * stride + part.x * BYTES_PER_PIXEL
        if row == stride:
            self._copy_bytes(image, start, row * part.height, target)
            return
        for line in range(part.height):
            at = line * row
            self._copy_bytes(image, start + line * stride, row, target[at : at + row])

    def _copy_bytes(self, image: Image, start: int, size: int, target: memoryview) -> None:
        """Copy size bytes from offset start of an image, across its runs."""
        runs = image.runs
        low, high = 0, len(runs)
        while high - low > 1:  # the last run that begins at start or before
            middle = (low + high) // 2
            if runs[middle][0] <= start:
                low = middle
            else:
                high = middle
        done = 0
        while done < size:
            begin, at, length = runs[low]
            skip = start + done - begin
            count = min(length - skip, size - done)
            target[done : done + count] = self._memory[at + skip : at + skip + count]
            done += count
            low += 1
