"""The agent volume: this package's own guest side as a small read-only disk.

It is mounted at /usr/lib/insula in every qube and holds `insula/` (the rooms protocol, qrexec,
filecopy and guest) and whatever lies in `guest/files/` (`qubes-rpc/`, `rpc-config/`, ...) at its
top. Modules are compiled in advance and never checked against their sources: the volume cannot
change.
"""

import os
import py_compile
import sys
import tempfile
import uuid
from pathlib import Path

from insula.template.programs import run
from insula.template.tree import TreeFile, hash_tree, read_tree, write_tree

LABEL = "insula-agent"
MOUNT_POINT = "/usr/lib/insula"
_BLOCK = 4096  # bytes
_SPARE_BLOCKS = 256  # for the file system's own tables
_UUID_OFFSET = 1024 + 0x68  # in an ext4 image: superblock, field s_uuid
_SPARE_INODES = 64
# Hashed with the files: changed when the same files are laid out otherwise.
_BUILDER = TreeFile("builder", f"1 {sys.implementation.cache_tag}".encode())


def make_agent_volume(destination: Path, package_root: Path) -> str:
    """Make destination the agent volume of the package at package_root; returns its hash.

    The hash is of what is in the volume. Nothing is written when destination has that already; it
    is replaced as a whole otherwise.

    Raises:
        ProgramMissingError, ProgramFailedError: mke2fs could not be run, or failed.
    """
    files = _volume_files(package_root)
    # The interpreter's tag is part of the names of compiled modules.
    content_hash = hash_tree((_BUILDER, *files))
    identity = uuid.UUID(content_hash[:32])
    if _identity(destination) == identity:
        return content_hash
    with tempfile.TemporaryDirectory(prefix=".agent-", dir=destination.parent) as name:
        work = Path(name)
        paths = _lay_out(files, work / "top")
        _write_image(work / "image", work / "top", paths, identity)
        (work / "image").rename(destination)
    return content_hash


def _volume_files(package_root: Path) -> list[TreeFile]:
    """What belongs on the volume."""
    extra = read_tree(package_root / "guest" / "files")
    files = [TreeFile("insula/__init__.py", (package_root / "__init__.py").read_bytes())]
    for room in ("protocol", "qrexec", "filecopy", "guest"):
        for file in read_tree(package_root / room, "*.py"):
            if not file.path.startswith("files/"):
                files.append(TreeFile(f"insula/{room}/{file.path}", file.content))
    return [*files, *extra]


def _identity(image: Path) -> uuid.UUID | None:
    """The file system's UUID, made of the hash of its content; None when there is no image."""
    try:
        with image.open("rb") as opened:
            opened.seek(_UUID_OFFSET)
            found = opened.read(16)
    except FileNotFoundError:
        return None
    return uuid.UUID(bytes=found) if len(found) == 16 else None


def _lay_out(files: list[TreeFile], top: Path) -> list[Path]:
    """Write files and compiled modules below top; returns the paths of all, directories as well."""
    write_tree(top, files)
    for file in files:
        if file.path.endswith(".py"):
            compiled = py_compile.compile(
                str(top / file.path),
                dfile=f"{MOUNT_POINT}/{file.path}",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            assert compiled is not None
            Path(compiled).parent.chmod(0o755)
            Path(compiled).chmod(0o644)
    return list(top.rglob("*"))


def _write_image(image: Path, top: Path, paths: list[Path], identity: uuid.UUID) -> None:
    """Make an ext4 file system of what lies below top, all of it owned by root, on the disk."""
    blocks = _SPARE_BLOCKS + sum(1 + path.lstat().st_size // _BLOCK for path in paths)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", LABEL, "-d", str(top), "-m", "0"]
    argv += ["-b", str(_BLOCK), "-N", str(_SPARE_INODES + len(paths)), "-U", str(identity)]
    argv += ["-O", "^has_journal,^resize_inode", "-E", f"root_owner=0:0,hash_seed={identity}"]
    argv += [str(image), str(blocks)]
    if os.geteuid() != 0:
        argv = ["unshare", "--user", "--map-root-user", "--", *argv]
    run(argv, environment={"E2FSPROGS_FAKE_TIME": "1"})
    with image.open("rb") as opened:
        os.fsync(opened.fileno())


def main() -> None:
    """Make the agent volume of this package where the command line says; prints its hash."""
    print(make_agent_volume(Path(sys.argv[1]), Path(__file__).parent.parent))


if __name__ == "__main__":
    main()
