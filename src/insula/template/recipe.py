"""What a template is made of, as one value with a hash."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from insula.template.tree import TreeFile, hash_tree, read_tree

GIB = 1024**3
_BUILDER = 1  # raised when the steps of `build` change what comes out


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A template's name, Debian release, packages and files. Sizes are bytes.

    before: files that are there before any package is. files: copied over all packages.
    setup: a shell script that ends the work inside the new root.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    before: tuple[TreeFile, ...]
    files: tuple[TreeFile, ...]
    setup: str
    size: int = 10 * GIB
    needed_space: int = 3 * GIB

    @property
    def hash(self) -> str:
        """Hexadecimal digits that differ between recipes with different results."""
        trees = hash_tree(self.before), hash_tree(self.files)
        everything = (_BUILDER, self.name, self.suite, self.packages, trees, self.setup, self.size)
        return hashlib.sha256(repr(everything).encode()).hexdigest()[:32]


def load(name: str, suite: str, directory: Path) -> Recipe:
    """The recipe whose packages.txt, before/, root/ and setup.sh lie in directory."""
    lines = (directory / "packages.txt").read_text().splitlines()
    return Recipe(
        name=name,
        suite=suite,
        packages=tuple(line for line in lines if line and not line.startswith("#")),
        before=read_tree(directory / "before"),
        files=read_tree(directory / "root"),
        setup=(directory / "setup.sh").read_text(),
    )
