"""Making a template from its recipe: a root image, and the kernel that boots it.

What is built lies in `templates/HASH/` of a cache, where HASH is the recipe's. It is made in a
directory beside, which gets that name when all of it is on the disk: a name in the cache is whole.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from insula.protocol.errors import ReportableError
from insula.template.applications import told_by
from insula.template.bootstrap import bootstrap
from insula.template.programs import ProgramFailedError, as_root, require_root, run
from insula.template.progress import Progress
from insula.template.recipe import Recipe
from insula.template.space import NoSpaceError, free_space, ran_out, require_space

LABEL = "insula-root"
_UNFINISHED = ".building-"
_JOURNAL = 32  # MiB
_APPLICATIONS = "applications"


class CacheError(ReportableError):
    """Templates cannot be built where they are to be kept."""

    hint = "Set INSULA_CACHE to a directory of your own."


@dataclass(frozen=True, slots=True)
class BuiltTemplate:
    """Files of a template in the cache: a qcow2 image of a whole ext4 disk, its kernel, initrd."""

    root: Path
    kernel: Path
    initrd: Path
    hash: str

    @property
    def applications(self) -> Path:
        """What it tells of its applications."""
        return self.root.with_name(_APPLICATIONS)


def cached(recipe: Recipe, cache_dir: Path) -> BuiltTemplate | None:
    """The template as an earlier build left it; None when there is none of this recipe."""
    directory = cache_dir / "templates" / recipe.hash
    return _built(directory, recipe.hash) if directory.is_dir() else None


def build(recipe: Recipe, cache_dir: Path, progress: Progress) -> BuiltTemplate:
    """The template of a recipe, made now unless the cache has it.

    Another build in the same cache is waited for. progress gets each phase and how much of it is
    done.

    Raises:
        CacheError: the cache is not this user's to write to.
        NoSpaceError: the cache's file system is too small, found before or while building.
        NoDebianSourceError: apt of this machine knows no such Debian.
        NoRangesError: this user has no range of ids to build with.
        ProgramMissingError: a program that a build needs is not installed.
        ProgramFailedError: one failed.
    """
    templates = cache_dir / "templates"
    found = cached(recipe, cache_dir)
    if found is not None:
        return found
    _make_writable(templates)
    with _only_builder(templates, progress) as lock:
        found = cached(recipe, cache_dir)
        if found is not None:
            return found
        require_root()
        for unfinished in templates.glob(f"{_UNFINISHED}*"):
            _remove(unfinished)
        require_space(templates, recipe.needed_space)
        work = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=templates))
        try:
            _make(recipe, work, lock, progress)
            _publish(work / "out", templates / recipe.hash)
        except ProgramFailedError as error:
            if ran_out(work, error.output):
                raise NoSpaceError(templates, recipe.needed_space, free_space(work)) from error
            raise
        finally:
            _remove(work)
    return _built(templates / recipe.hash, recipe.hash)


def _make_writable(templates: Path) -> None:
    try:
        templates.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"{templates} cannot be made: {error.strerror}") from error
    if not os.access(templates, os.W_OK | os.X_OK):
        raise CacheError(f"{templates} cannot be written to")


def _built(directory: Path, recipe_hash: str) -> BuiltTemplate:
    return BuiltTemplate(
        root=directory / "root.qcow2",
        kernel=directory / "vmlinuz",
        initrd=directory / "initrd",
        hash=recipe_hash,
    )


@contextmanager
def _only_builder(templates: Path, progress: Progress) -> Iterator[int]:
    """Hold the cache's lock for the block; yields its descriptor.

    Programs of a build inherit it, so that the lock is free only when all of them have ended, too.
    """
    lock = os.open(templates / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _make(recipe: Recipe, work: Path, lock: int, progress: Progress) -> None:
    """Make root.qcow2, vmlinuz and initrd in work/out."""
    progress("base system", None)
    root = bootstrap(recipe, work, lock, progress)
    out = work / "out"
    out.mkdir()
    for kind, name in (("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")):
        (newest,) = (root / "boot").glob(f"{kind}-*")
        shutil.copyfile(newest, out / name)
    (out / _APPLICATIONS).write_text(told_by(root))
    progress("file system", None)
    raw = work / "root.raw"
    source_image_size = ["-d", str(root), str(raw), str(recipe.size >> 10)]
    run(as_root([*_file_system_command(), *source_image_size]), keep=(lock,))
    _remove(root)
    progress("image", None)
    formats = ["-f", "raw", "-O", "qcow2"]
    run(["qemu-img", "convert", *formats, str(raw), str(out / "root.qcow2")], keep=(lock,))


def _file_system_command() -> list[str]:
    """mke2fs, but for its source, image and size in KiB.

    Inode tables are complete at once: a qube's kernel must not write them into its overlay later.
    """
    extended = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"
    shape = ["-L", LABEL, "-m", "1", "-J", f"size={_JOURNAL}", "-E", extended]
    return ["mke2fs", "-q", "-F", "-t", "ext4", *shape]


def _publish(made: Path, final: Path) -> None:
    """Put all of made on the disk, then give it its name."""
    for path in (*made.iterdir(), made):
        _flush(path)
    made.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    """Remove a directory of a build, whose files belong to the ids of its namespace."""
    if directory.exists():
        run(as_root(["rm", "-rf", "--one-file-system", str(directory)]))
