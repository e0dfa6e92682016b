"""Pools of kernels: $INSULA_HOME/kernels/NAME/{vmlinuz,initrd} and its like, each kernel whole."""

import asyncio
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from insula.daemon.model.pools import KERNEL_POOL, Pool
from insula.daemon.storage import files
from insula.daemon.storage.errors import StorageError, space, told
from insula.daemon.storage.places import KERNELS, Places

IMAGE, INITRD = "vmlinuz", "initrd"
_OPTIONS = {True: "default-kernelopts-pci.txt", False: "default-kernelopts-nopci.txt"}
_LONGEST_OPTIONS = 2048  # bytes, which is what Linux takes on x86
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)


class NoSuchKernelError(StorageError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no kernel {name!r}")
        self.hint = f"They lie in the directory of: qvm-pool info {KERNEL_POOL}"


class Kernels:
    """The kernels of one instance, in its own pool and in others."""

    def __init__(self, home: Path) -> None:
        self._places = Places(home)
        self._elsewhere: dict[str, Path] = {}

    def use(self, pool: Pool) -> None:
        """Look for kernels in a pool, too, if it is one for them."""
        if pool.holds_kernels and pool.directory is not None:
            self._elsewhere[pool.name] = Path(pool.directory)

    def leave(self, pool: Pool) -> None:
        """Look no more in a pool."""
        self._elsewhere.pop(pool.name, None)

    def names(self, pool: str | None = None) -> tuple[str, ...]:
        """Kernels that are whole, of one pool or of all, in order of their names."""
        places = self._pools() if pool is None else {pool: self._pools()[pool]}
        return tuple(sorted({path.name for place in places.values() for path in _inside(place)}))

    def find(self, name: str) -> tuple[Path, Path]:
        """Image and initial RAM disk of a kernel.

        Raises:
            NoSuchKernelError: no pool has one of that name.
        """
        place = self._pools()[self.pool_of(name)] / name
        return place / IMAGE, place / INITRD

    def pool_of(self, name: str) -> str:
        """The pool from which a kernel is taken.

        Raises:
            NoSuchKernelError: no pool has one of that name.
        """
        if _NAME.fullmatch(name) is not None:
            for pool, place in self._pools().items():
                if _whole(place / name):
                    return pool
        raise NoSuchKernelError(name)

    def options(self, name: str, *, pci: bool) -> str | None:
        """What a kernel wants on its command line, with devices of PCI or without."""
        try:
            image, _ = self.find(name)
        except NoSuchKernelError:
            return None
        return _options_in(image.with_name(_OPTIONS[pci]))

    def taken_from(self, pool: str) -> frozenset[str]:
        """Names of the kernels that are a pool's, and not another's of the same name."""
        return frozenset(name for name in self.names(pool) if self.pool_of(name) == pool)

    def _pools(self) -> dict[str, Path]:
        return {KERNEL_POOL: self._places.kernels, **self._elsewhere}

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


@dataclass(frozen=True, slots=True)
class Installed(Collection[str]):
    """Names of the kernels that are there when they are asked for."""

    kernels: Kernels

    def __contains__(self, name: object) -> bool:
        try:
            self.kernels.pool_of(str(name))
        except NoSuchKernelError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.kernels.names())

    def __len__(self) -> int:
        return len(self.kernels.names())


@dataclass(frozen=True, slots=True)
class Options:
    """What kernels want on their command line when it is asked for."""

    kernels: Kernels

    def get(self, key: tuple[str, bool], /) -> str | None:
        name, pci = key
        return self.kernels.options(name, pci=pci)


def _whole(place: Path) -> bool:
    return not place.name.startswith(".") and all(
        (place / part).is_file() for part in (IMAGE, INITRD)
    )


def _options_in(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            text = opened.read(_LONGEST_OPTIONS).decode("ascii").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):  # Most kernels have none, and this is no reason to stop.
        return None
    return text if text.isprintable() else None


def _inside(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if _whole(path)]
    except OSError:  # It is made with its first kernel, or is on a file system not mounted now.
        return []
