"""Files to be laid out: read from a directory, hashed, written below another."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file: its path from the top of its tree, without leading slash, and its content."""

    path: str
    content: bytes

    @property
    def mode(self) -> int:
        """Scripts may be run; packages of Python keep no permissions, so their first line says."""
        return 0o755 if self.content.startswith(b"#!") else 0o644


def read_tree(top: Path, pattern: str = "*") -> tuple[TreeFile, ...]:
    """The files below top whose names match, in the order of their paths."""
    paths = (path for path in top.rglob(pattern) if "__pycache__" not in path.parts)
    files = (
        TreeFile(str(path.relative_to(top)), path.read_bytes()) for path in paths if path.is_file()
    )
    return tuple(sorted(files, key=lambda file: file.path))


def hash_tree(files: Iterable[TreeFile]) -> str:
    """Hexadecimal digits that differ between trees that differ."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{len(file.path)} {len(file.content)} {file.path}".encode())
        digest.update(file.content)
    return digest.hexdigest()


def write_tree(top: Path, files: Iterable[TreeFile]) -> None:
    """Lay files out below top, readable by everybody whatever this process's umask."""
    top.mkdir(exist_ok=True)
    for file in files:
        path = top / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    for directory in (top, *(path for path in top.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
