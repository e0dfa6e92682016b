"""The agent volume: what is on it, and when it is made anew."""

import subprocess
from pathlib import Path

import pytest

import insula
from insula.template.agent_volume import make_agent_volume
from insula.template.tree import TreeFile, write_tree

FILES = [
    TreeFile("__init__.py", b""),
    TreeFile("client/__init__.py", b"secret = 1\n"),
    TreeFile("guest/__init__.py", b"answer = 42\n"),
    TreeFile("guest/files/qubes-rpc/qubes.Test", b"#!/bin/sh\ntrue\n"),
    TreeFile("guest/files/rpc-config/qubes.Test", b"force-user=root\n"),
    TreeFile("guest/gui/__main__.py", b"import insula\n"),
    TreeFile("protocol/__init__.py", b""),
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_tree(tmp_path / "package", FILES)
    return tmp_path / "package"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "agent.img"


def debugfs(image: Path, request: str) -> bytes:
    argv = ["debugfs", "-R", request, str(image)]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def listing(image: Path, directory: str) -> dict[str, tuple[str, str, str]]:
    """Names in a directory with permissions, uid and gid."""
    lines = debugfs(image, f"ls -p {directory}").decode().split()
    entries = [line.strip("/").split("/") for line in lines]
    return {entry[4]: (entry[1][-4:], entry[2], entry[3]) for entry in entries}


def test_it_holds_the_guests_rooms_and_files_but_no_other(package: Path, image: Path) -> None:
    make_agent_volume(image, package)
    top = set(listing(image, "/")) - {".", "..", "lost+found"}
    assert top == {"insula", "qubes-rpc", "rpc-config"}
    rooms = set(listing(image, "/insula")) - {".", "..", "__pycache__"}
    assert rooms == {"__init__.py", "guest", "protocol"}
    assert "files" not in listing(image, "/insula/guest")
    assert debugfs(image, "cat /insula/guest/__init__.py") == b"answer = 42\n"


def test_everything_is_roots_and_readable_and_services_run(package: Path, image: Path) -> None:
    make_agent_volume(image, package)
    assert listing(image, "/qubes-rpc")["qubes.Test"] == ("0755", "0", "0")
    assert listing(image, "/rpc-config")["qubes.Test"] == ("0644", "0", "0")
    assert listing(image, "/insula/guest")["__pycache__"] == ("0755", "0", "0")
    assert listing(image, "/insula/guest")["."] == ("0755", "0", "0")


def test_modules_are_compiled_and_not_checked_again(package: Path, image: Path) -> None:
    make_agent_volume(image, package)
    names = listing(image, "/insula/guest/__pycache__")
    (name,) = (name for name in names if name.startswith("__init__"))
    compiled = debugfs(image, f"cat /insula/guest/__pycache__/{name}")
    assert compiled[4:8] == bytes([0b01, 0, 0, 0])  # PEP 552: by hash, unchecked
    assert b"/usr/lib/insula/insula/guest/__init__.py" in compiled


def test_the_same_package_is_not_written_again(package: Path, image: Path) -> None:
    first = make_agent_volume(image, package)
    inode = image.stat().st_ino
    assert make_agent_volume(image, package) == first
    assert image.stat().st_ino == inode


def test_a_changed_module_makes_another_volume(package: Path, image: Path) -> None:
    first = make_agent_volume(image, package)
    (package / "guest/__init__.py").write_bytes(b"answer = 43\n")
    assert make_agent_volume(image, package) != first
    assert debugfs(image, "cat /insula/guest/__init__.py") == b"answer = 43\n"


@pytest.mark.parametrize("broken", [b"", b"no image", bytes(4096)])
def test_a_damaged_image_is_replaced(package: Path, image: Path, broken: bytes) -> None:
    image.write_bytes(broken)
    make_agent_volume(image, package)
    assert "insula" in listing(image, "/")


def test_nothing_else_is_left_beside_the_image(package: Path, image: Path) -> None:
    make_agent_volume(image, package)
    assert {path.name for path in image.parent.iterdir()} == {"agent.img", "package"}


def test_this_very_package_fits_and_is_sound(image: Path) -> None:
    make_agent_volume(image, Path(insula.__file__).parent)
    subprocess.run(["e2fsck", "-f", "-n", str(image)], check=True, capture_output=True)
    assert "control.py" in listing(image, "/insula/protocol")
