"""Builds of templates, with a root of three files in place of a bootstrapped one."""

import dataclasses
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from insula.template import build as build_module
from insula.template.build import BuiltTemplate, CacheError, build, cached
from insula.template.programs import ProgramFailedError
from insula.template.progress import Progress
from insula.template.recipe import Recipe
from insula.template.space import NoSpaceError

RECIPE = Recipe(
    name="tiny",
    suite="none",
    packages=(),
    before=(),
    files=(),
    setup="",
    size=1024**3,
    needed_space=1024**2,
)
Bootstrap = Callable[[Recipe, Path, int, Progress], Path]


def quiet(phase: str, part: float | None) -> None:
    """A progress that nobody looks at."""


class Bootstrapped:
    """Stands for mmdebstrap: makes a root, or fails once with an error."""

    def __init__(self) -> None:
        self.roots = 0
        self.error: BaseException | None = None

    def __call__(self, _recipe: Recipe, work: Path, _lock: int, _report: Progress) -> Path:
        root = work / "root"
        (root / "boot").mkdir(parents=True)
        (root / "boot/vmlinuz-6").write_text("kernel")
        (root / "boot/initrd.img-6").write_text("initrd")
        (root / "hello").write_text("from inside")
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.roots += 1
        return root


@pytest.fixture
def bootstrapped(monkeypatch: pytest.MonkeyPatch) -> Bootstrapped:
    stand_in = Bootstrapped()
    monkeypatch.setattr(build_module, "bootstrap", stand_in)
    return stand_in


def names(cache: Path) -> set[str]:
    return {path.name for path in (cache / "templates").iterdir()} - {".lock"}


def inspect(built: BuiltTemplate, raw: Path, request: str) -> str:
    """What debugfs says of the image."""
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(built.root), str(raw)]
    subprocess.run(convert, check=True)
    debugfs = ["debugfs", "-R", request, str(raw)]
    return subprocess.run(debugfs, check=True, capture_output=True, text=True).stdout


@pytest.mark.usefixtures("bootstrapped")
def test_a_build_leaves_an_image_its_kernel_and_nothing_else(tmp_path: Path) -> None:
    built = build(RECIPE, tmp_path, quiet)
    assert built.kernel.read_text() == "kernel"
    assert built.initrd.read_text() == "initrd"
    assert inspect(built, tmp_path / "raw", "cat /hello") == "from inside"
    assert names(tmp_path) == {RECIPE.hash}


@pytest.mark.usefixtures("bootstrapped")
def test_an_image_has_its_label_size_and_complete_inode_tables(tmp_path: Path) -> None:
    header = inspect(build(RECIPE, tmp_path, quiet), tmp_path / "raw", "stats")
    fields = dict(line.partition(":")[::2] for line in header.splitlines())
    assert fields["Filesystem volume name"].strip() == "insula-root"
    assert int(fields["Block count"]) * int(fields["Block size"]) == RECIPE.size
    assert (tmp_path / "raw").stat().st_size == RECIPE.size
    dumpe2fs = ["dumpe2fs", str(tmp_path / "raw")]
    groups = subprocess.run(dumpe2fs, check=True, capture_output=True, text=True).stdout
    assert groups.count("ITABLE_ZEROED") == groups.count("\nGroup ") - groups.count("\nGroup d")


def test_a_recipe_is_built_once(tmp_path: Path, bootstrapped: Bootstrapped) -> None:
    assert cached(RECIPE, tmp_path) is None
    built = build(RECIPE, tmp_path, quiet)
    assert build(RECIPE, tmp_path, quiet) == built == cached(RECIPE, tmp_path)
    assert bootstrapped.roots == 1


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot be made: Not a directory"):
        build(RECIPE, tmp_path / "file", quiet)


def test_a_changed_recipe_is_built_beside(tmp_path: Path, bootstrapped: Bootstrapped) -> None:
    changed = dataclasses.replace(RECIPE, setup="true")
    build(RECIPE, tmp_path, quiet)
    build(changed, tmp_path, quiet)
    assert names(tmp_path) == {RECIPE.hash, changed.hash}
    assert bootstrapped.roots == 2


def test_an_interrupted_build_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, bootstrapped: Bootstrapped
) -> None:
    bootstrapped.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        build(RECIPE, tmp_path, quiet)
    assert names(tmp_path) == set()
    assert build(RECIPE, tmp_path, quiet).root.is_file()


@pytest.mark.usefixtures("bootstrapped")
def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "templates/.building-dead/root").mkdir(parents=True)
    (tmp_path / "templates/.building-dead/root/file").write_text("half")
    build(RECIPE, tmp_path, quiet)
    assert names(tmp_path) == {RECIPE.hash}


def test_two_builders_at_once_make_one_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bootstrapped: Bootstrapped
) -> None:
    second_waits = threading.Event()

    def slow(recipe: Recipe, work: Path, lock: int, report: Progress) -> Path:
        second.start()
        assert second_waits.wait(30)
        return bootstrapped(recipe, work, lock, report)

    def heard(phase: str, _part: float | None) -> None:
        if phase == "waiting for another build":
            second_waits.set()

    results: list[BuiltTemplate] = []
    second = threading.Thread(target=lambda: results.append(build(RECIPE, tmp_path, heard)))
    monkeypatch.setattr(build_module, "bootstrap", slow)
    built = build(RECIPE, tmp_path, quiet)
    second.join(30)
    assert results == [built]
    assert bootstrapped.roots == 1


def test_too_little_space_is_told_before_anything_is_made(
    tmp_path: Path, bootstrapped: Bootstrapped
) -> None:
    huge = dataclasses.replace(RECIPE, needed_space=2**62)
    with pytest.raises(NoSpaceError, match=f"no space left in {tmp_path}/templates"):
        build(huge, tmp_path, quiet)
    assert bootstrapped.roots == 0
    assert names(tmp_path) == set()


def test_space_that_ran_out_on_the_way_is_told_as_such(
    tmp_path: Path, bootstrapped: Bootstrapped
) -> None:
    output = "cp: error writing 'x': No space left on device"
    bootstrapped.error = ProgramFailedError("mmdebstrap", 1, output)
    with pytest.raises(NoSpaceError, match="no space left"):
        build(RECIPE, tmp_path, quiet)
    assert names(tmp_path) == set()


def test_another_failure_shows_what_the_program_said(
    tmp_path: Path, bootstrapped: Bootstrapped
) -> None:
    bootstrapped.error = ProgramFailedError("mmdebstrap", 1, "E: no such suite")
    with pytest.raises(ProgramFailedError, match="no such suite"):
        build(RECIPE, tmp_path, quiet)
    assert names(tmp_path) == set()
