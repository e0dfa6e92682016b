"""What a test needs of an instance that belongs to another user than the one who runs the tests.

That user may not even reach where the package, its libraries and templates lie, and gets copies.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

import insula
from insula.client.instance import cache
from insula.template.build import BuiltTemplate, build
from insula.template.recipes import find_recipe
from tests.vm.instance import Instance

PYTHON = "/usr/bin/python3"


@contextmanager
def instance_of(user: int) -> Iterator[Instance]:
    """Directories, commands and a cache with the template debian-12; nothing is up."""
    scratch = Path(tempfile.mkdtemp(prefix="insula-"))
    try:
        scratch.chmod(0o755)
        libraries, home = scratch / "lib", scratch / "home"
        _copy_package(libraries)
        _make_commands(scratch / "bin")
        _share(build(find_recipe("debian-12"), cache(), lambda _phase, _part: None), scratch)
        home.mkdir()
        os.chown(home, user, user)
        environment = {
            "HOME": str(home),
            "INSULA_CACHE": str(scratch / "cache"),
            "PATH": "/usr/bin:/bin",  # what an ordinary user searches
            "PYTHONPATH": str(libraries),
        }
        yield Instance(home / "state", home / "run", environment, scratch / "bin", user)
    finally:
        shutil.rmtree(scratch)


def _copy_package(target: Path) -> None:
    """The package and all that it depends on."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(insula.__path__[0]), target / "insula", ignore=ignored)
    for name in _required("insula"):
        for file in distribution(name).files or ():
            if file.parts[0] != ".." and file.suffix != ".pyc":
                place = target / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), place)


def _required(name: str) -> set[str]:
    found = set[str]()
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= {requirement.name} | _required(requirement.name)
    return found


def _make_commands(target: Path) -> None:
    target.mkdir()
    for entry in distribution("insula").entry_points:
        command = target / entry.name
        command.write_text(
            f"#!{PYTHON}\nimport sys\nfrom {entry.module} import {entry.attr}\n"
            f"sys.exit({entry.attr}())\n"
        )
        command.chmod(0o755)


def _share(built: BuiltTemplate, scratch: Path) -> None:
    """Put a built template into a cache that others can read, as a machine's owner may."""
    place = scratch / "cache" / "templates" / built.hash
    place.mkdir(parents=True)
    for file in (built.root, built.kernel, built.initrd):
        try:
            os.link(file, place / file.name)
        except OSError:
            shutil.copyfile(file, place / file.name)
        (place / file.name).chmod(0o644)
