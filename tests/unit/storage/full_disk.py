"""Run alone: one operation on a file system that fills up, and what came of it as JSON."""

import asyncio
import errno
import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from insula.daemon.model.volume import Volume
from insula.daemon.storage.errors import NoSpaceError, free_space
from insula.daemon.storage.kernels import Kernels
from insula.daemon.storage.plan import Plan
from insula.daemon.storage.volumes import Storage, close

_SIZE = 64 << 20  # bytes


async def main(home: Path, what: str) -> None:
    storage = Storage(home)
    await storage.prepare()
    private = Volume(owner=uuid4(), name="private", size=_SIZE, save_on_stop=True)
    await storage.create(private)
    result: dict[str, object] = {"error": None}
    before = _files(home)
    try:
        match what:
            case "attach":
                _fill(home)
                await storage.attach([Plan(volume=Volume(owner=uuid4(), name="v", size=_SIZE))])
            case "private":
                _fill(home)
                await storage.attach([Plan(volume=private)])
            case "import":
                image = home.parent.parent / "image.raw"
                image.write_bytes(os.urandom(2 << 20))
                await storage.import_image(private, image, "raw")
            case "stream":
                path = await storage.begin_import(private, 512 << 10)
                _fill(home)
                result["error"] = _failure(path)
                await storage.prune(private)
            case "merge":
                for _ in range(2):
                    private = await _written(storage, private)
                before = _files(home)
                _fill(home)
                await storage.merge(replace(private, revisions=()), longest=1)
            case "kernel":
                await Kernels(home).install("6.1", Path(sys.executable), Path(sys.executable))
            case "remove":
                private = await _written(storage, private)
                _fill(home)
                result["free"] = free_space(home)
                await storage.remove(private.owner)
                before = set()
    except NoSpaceError as error:
        result |= {
            "error": type(error).__name__,
            "message": str(error),
            "free": error.free,
            "needed": error.needed,
        }
    result["left"] = sorted(str(path) for path in _files(home) - before)
    print(json.dumps(result))


async def _written(storage: Storage, volume: Volume) -> Volume:
    """The volume after a start, as if its machine had made its first cluster one of data."""
    disks = await storage.attach([Plan(volume=volume)])
    close(disks)
    return await storage.commit(volume)


def _failure(path: Path) -> str | None:
    """What keeps somebody from writing a file."""
    try:
        with path.open("r+b", buffering=0) as file:
            file.write(os.urandom(512 << 10))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def _fill(home: Path) -> None:
    """Leave no byte free; the file that takes them is not in home."""
    with suppress(OSError), (home.parent / "filler").open("wb", buffering=0) as filler:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while filler.write(b"x" * size):
                    pass


def _files(home: Path) -> set[Path]:
    return {path for path in home.rglob("*") if path.is_file()}


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) / "home", sys.argv[2]))
