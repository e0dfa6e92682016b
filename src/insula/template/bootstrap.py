"""Filling a directory with a new root: packages by mmdebstrap, then the recipe's own files."""

from pathlib import Path

from insula.template.apt import machine_sources, machine_transport
from insula.template.programs import as_root, run
from insula.template.progress import BootstrapProgress, Progress
from insula.template.recipe import Recipe
from insula.template.sources import render
from insula.template.tree import TreeFile, write_tree

# The initrd is made once, by the recipe's setup, and not by the kernel's package as well.
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "INITRD": "No"}


def bootstrap(recipe: Recipe, work: Path, lock: int, report: Progress) -> Path:
    """Make the recipe's root as a directory below work, and return it.

    Raises:
        NoDebianSourceError: apt of this machine knows no such Debian.
        ProgramMissingError: mmdebstrap, unshare or setpriv is not installed.
        ProgramFailedError: mmdebstrap failed.
    """
    sources = render(machine_sources(recipe.suite))
    (work / "tmp").mkdir()
    apt_list = TreeFile("etc/apt/sources.list.d/debian.sources", sources.encode())
    write_tree(work / "before", recipe.before)
    write_tree(work / "files", (*recipe.files, apt_list))
    (work / "mirrors.sources").write_text(sources)
    (work / "setup.sh").write_text(recipe.setup)
    root = work / "root"
    argv = [
        "mmdebstrap",
        "--verbose",
        "--mode=root",
        "--format=directory",
        "--variant=apt",
        "--dpkgopt=force-unsafe-io",  # what is half done is never used
        *(f"--aptopt={line}" for line in machine_transport()),
        f"--include={','.join(recipe.packages)}",
        f"--setup-hook={_copy(work / 'before')}",
        f"--customize-hook={_copy(work / 'files')}",
        f'--customize-hook=chroot "$1" /bin/sh -eu -s < "{work}/setup.sh"',
        recipe.suite,
        str(root),
        str(work / "mirrors.sources"),
    ]
    run(
        as_root(argv),
        heard=BootstrapProgress(report).hear,
        environment=_ENVIRONMENT | {"TMPDIR": str(work / "tmp")},
        keep=(lock,),
    )
    return root


def _copy(source: Path) -> str:
    """A hook that copies what lies in source over the new root."""
    return f'cp --recursive --no-target-directory "{source}" "$1"'
