"""The pool of kernels: $INSULA_HOME/kernels/NAME/{vmlinuz,initrd}, each whole or not there."""

import asyncio
import os
import re
from pathlib import Path

from insula.daemon.storage import files
from insula.daemon.storage.errors import StorageError, space, told
from insula.daemon.storage.places import KERNELS, Places

IMAGE, INITRD = "vmlinuz", "initrd"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)


class NoSuchKernelError(StorageError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no kernel {name!r}")
        self.hint = "See those there are with: qvm-pool-volumes linux-kernel"


class Kernels:
    """The kernels of one instance."""

    def __init__(self, home: Path) -> None:
        self._places = Places(home)

    def names(self) -> tuple[str, ...]:
        """Kernels that are whole, in order of their names."""
        if not self._places.kernels.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._places.kernels.iterdir() if _whole(path)))

    def find(self, name: str) -> tuple[Path, Path]:
        """Image and initial RAM disk of a kernel.

        Raises:
            NoSuchKernelError: the pool has none of that name.
        """
        place = self._places.kernels / name
        if _NAME.fullmatch(name) is None or not _whole(place):
            raise NoSuchKernelError(name)
        return place / IMAGE, place / INITRD

    async def install(self, name: str, image: Path, initrd: Path) -> None:
        """Copy a kernel into the pool; one of that name is replaced, whole or not at all.

        Raises:
            NoSpaceError, MissingFileError, StorageError: the pool is as it was.
        """
        await asyncio.to_thread(self._install, name, image, initrd)

    def _install(self, name: str, image: Path, initrd: Path) -> None:
        if _NAME.fullmatch(name) is None:
            raise StorageError(f"a kernel cannot be called {name!r}")
        unfinished, former = f".{name}.new", f".{name}.old"
        with files.directory(self._places.home, KERNELS, create=True) as pool:
            for left in (unfinished, former):
                files.remove_tree(pool, left)
            try:
                with files.directory(self._places.kernels, unfinished, create=True) as place:
                    for source, target in ((image, IMAGE), (initrd, INITRD)):
                        self._copy(source, place, target)
                if files.exists(pool, name):
                    os.rename(name, former, src_dir_fd=pool, dst_dir_fd=pool)
                os.rename(unfinished, name, src_dir_fd=pool, dst_dir_fd=pool)
                os.fsync(pool)
            finally:
                for left in (unfinished, former):
                    files.remove_tree(pool, left)

    def _copy(self, source: Path, place: int, name: str) -> None:
        with told(source):
            opened = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            needed = os.fstat(opened).st_size
            with space(self._places.kernels, needed), files.new_file(place, name) as target:
                files.copy(opened, target)
                os.fchmod(target, 0o444)  # QEMU opens it anew, as its own user.
        finally:
            os.close(opened)


def _whole(place: Path) -> bool:
    return not place.name.startswith(".") and all(
        (place / part).is_file() for part in (IMAGE, INITRD)
    )
