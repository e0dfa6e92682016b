"""The files that a viewer's jail shows of ours: `python -m insula.viewer.files FOLDER`.

Lays them out below FOLDER, in a folder named by their content that is whole or absent, and prints
that folder. It holds two rooms of the package, what a viewer needs of xcffib, and all of it
compiled: a viewer can write nothing, and a jail's user may not even reach where it is installed.
"""

import compileall
import contextlib
import hashlib
import importlib
import os
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROOMS = ("protocol", "viewer")
_KEPT = 8  # folders, each of one version of the program
_XCFFIB = ("__init__.py", "shm.py", "xproto.py")


def lay_out(below: Path) -> Path:
    """Make the folder if there is none of this content yet; returns it."""
    below.mkdir(mode=0o755, parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".", dir=below))
    try:
        _fill(scratch)
        place = below / _digest(scratch)
        if place.exists():
            os.utime(place)
        else:
            compileall.compile_dir(
                scratch,
                quiet=2,
                stripdir=scratch,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            _open_to_all(scratch)
            try:
                scratch.rename(place)
            except OSError:
                if not place.exists():  # another of us was first
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _prune(below)
    return place


def _prune(below: Path) -> None:
    """Keep the folders used last: older programs' viewers have loaded what they need."""
    for folder in sorted(below.iterdir(), key=_last_use, reverse=True)[_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another of us is done with its scratch
        return 0.0


def _fill(folder: Path) -> None:
    package = Path(__file__).parents[1]
    ours = folder / "insula"
    ours.mkdir()
    shutil.copyfile(package / "__init__.py", ours / "__init__.py")
    for room in _ROOMS:
        shutil.copytree(package / room, ours / room, ignore=shutil.ignore_patterns("__pycache__"))
    theirs = folder / "xcffib"
    theirs.mkdir()
    installed = Path(str(importlib.import_module("xcffib").__file__)).parent
    for name in _XCFFIB:
        shutil.copyfile(installed / name, theirs / name)
    backend = Path(str(importlib.import_module("_cffi_backend").__file__))
    shutil.copyfile(backend, folder / backend.name)
    _declare(theirs / "ffi.py")


def _declare(target: Path) -> None:
    """Write xcffib's declarations of libxcb in the form that needs no parser of C.

    That parser would cost every viewer a third of its memory and half of its start.
    """
    cffi: Any = importlib.import_module("cffi")
    importlib.import_module("xcffib.ffi")
    declarations: Any = sys.modules["xcffib.ffi"]  # as an attribute it is the object inside
    builder = cffi.FFI()
    builder.set_source("xcffib.ffi", None)
    builder.cdef(declarations.CDEF)
    with contextlib.redirect_stdout(sys.stderr):
        builder.emit_python_code(str(target))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(_files(folder)):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _files(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.rglob("*") if entry.is_file())


def _open_to_all(folder: Path) -> None:
    """Anyone may read: what is in it is no secret, and each viewer may run as another user."""
    for entry in (folder, *folder.rglob("*")):
        entry.chmod(0o755 if entry.is_dir() else 0o644)


def main(arguments: list[str]) -> int:
    """Lay the files out; prints where."""
    print(lay_out(Path(arguments[0])))
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
