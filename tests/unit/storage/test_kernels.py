"""The pool of kernels."""

from pathlib import Path

import pytest

from insula.daemon.storage.errors import MissingFileError, StorageError
from insula.daemon.storage.kernels import Installed, Kernels, NoSuchKernelError, Options


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"initrd")
    return tmp_path / "home"


async def test_kernel_is_found_by_its_name(home: Path) -> None:
    kernels = Kernels(home)
    assert kernels.names() == ()
    await kernels.install("6.1.0-56", home.parent / "vmlinuz", home.parent / "initrd")
    assert kernels.names() == ("6.1.0-56",)
    image, initrd = kernels.find("6.1.0-56")
    assert (image.read_bytes(), initrd.read_bytes()) == (b"kernel", b"initrd")


async def test_installed_again_it_is_replaced(home: Path) -> None:
    kernels = Kernels(home)
    await kernels.install("a", home.parent / "vmlinuz", home.parent / "initrd")
    (home.parent / "vmlinuz").write_bytes(b"newer")
    await kernels.install("a", home.parent / "vmlinuz", home.parent / "initrd")
    assert kernels.find("a")[0].read_bytes() == b"newer"
    assert [path.name for path in (home / "kernels").iterdir()] == ["a"]


async def test_half_a_kernel_is_none(home: Path) -> None:
    kernels = Kernels(home)
    with pytest.raises(MissingFileError):
        await kernels.install("a", home.parent / "vmlinuz", home.parent / "none")
    assert kernels.names() == ()
    assert list((home / "kernels").iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../home", "a/b", ".a.new", "none"])
async def test_name_that_is_no_kernels_finds_nothing(home: Path, name: str) -> None:
    kernels = Kernels(home)
    await kernels.install("a", home.parent / "vmlinuz", home.parent / "initrd")
    with pytest.raises(NoSuchKernelError):
        kernels.find(name)
    if name != "none":
        with pytest.raises(StorageError, match="cannot be called"):
            await kernels.install(name, home.parent / "vmlinuz", home.parent / "initrd")


async def test_options_that_a_kernel_brings_are_read(home: Path) -> None:
    kernels = Kernels(home)
    for name in ("a", "b"):
        await kernels.install(name, home.parent / "vmlinuz", home.parent / "initrd")
    options = Options(kernels)
    assert options.get(("a", False)) is None
    (home / "kernels" / "a" / "default-kernelopts-nopci.txt").write_bytes(b"quiet x=1\n")
    (home / "kernels" / "b" / "default-kernelopts-pci.txt").write_bytes(b"")
    (home / "kernels" / "b" / "default-kernelopts-nopci.txt").write_bytes(b"\xff")
    (home / "kernels" / "c").mkdir()
    (home / "kernels" / "c" / "default-kernelopts-pci.txt").write_bytes(b"of none")
    asked = [(name, pci) for name in ("a", "b", "c", "..", "") for pci in (False, True)]
    told = {key: found for key in asked if (found := options.get(key)) is not None}
    assert told == {("a", False): "quiet x=1", ("b", True): ""}


def test_what_is_installed_is_what_is_there(home: Path) -> None:
    installed = Installed(Kernels(home))
    assert ("a" in installed, list(installed), len(installed)) == (False, [], 0)
    place = home / "kernels" / "a"
    place.mkdir(parents=True)
    for part in ("vmlinuz", "initrd"):
        (place / part).touch()
    assert ("a" in installed, list(installed), len(installed)) == (True, ["a"], 1)
    for name in ("..", "", "a/../a"):
        assert name not in installed
