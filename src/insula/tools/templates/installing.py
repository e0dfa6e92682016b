"""Getting packages of templates, and making templates of them."""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from insula.client.app import App
from insula.protocol.errors import ReportableError
from insula.tools import qvm_template_postprocess
from insula.tools.command import confirmed, say
from insula.tools.templates.installed import is_managed, mark
from insula.tools.templates.packages import check_signature, read_header, unpack
from insula.tools.templates.records import Package
from insula.tools.templates.update_qube import UpdateQube

_PROGRAM = "qvm-template"
Keys = Callable[[str], Sequence[Path]]  # from a repository to what its packages are signed with


class NotConfirmedError(ReportableError):
    """The answer was no."""

    def __init__(self) -> None:
        super().__init__("nothing was changed")


def download(
    update_qube: UpdateQube, package: Package, directory: Path, keys: Sequence[Path], retries: int
) -> Path:
    """Have a package in a directory, whole and signed; one that is there already is taken.

    Raises:
        ReportableError: it cannot be had.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / package.file_name
    if path.exists():
        say(_PROGRAM, f"{path} is there already")
        _check(path, package, keys)
        return path
    part = directory / f"{package.file_name}.part"
    for left in reversed(range(max(1, retries))):
        try:
            say(_PROGRAM, f"downloading {package.file_name}")
            update_qube.download(package, part)
            break
        except ReportableError as error:
            if not left:
                part.unlink(missing_ok=True)
                raise
            say(_PROGRAM, f"{error}; trying again")
    try:
        _check(part, package, keys)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def _check(path: Path, package: Package, keys: Sequence[Path]) -> None:
    """Whether a file is the package that it should be."""
    check_signature(path, keys)
    found = read_header(path, package.repository)
    if found.named != package.named:
        text = f"{path.name} is {found.name} {found.version}, not {package.name} {package.version}"
        raise ReportableError(text)


def local_package(path: Path, keys: Sequence[Path], *, checked: bool) -> Package:
    """A package that was given as a file.

    Raises:
        ReportableError: there is none, or it is not signed as it should be.
    """
    if not path.is_file():
        raise ReportableError(f"there is no file {path}")
    if checked:
        check_signature(path, keys)
    return read_header(path)


def install(app: App, package: Package, path: Path, arguments: argparse.Namespace) -> None:
    """Make a template of a package, over the one that there is.

    Raises:
        ReportableError: it cannot be made.
    """
    name = package.name
    if name in app.domains and not is_managed(app.domains[name]):
        raise ReportableError(f"there is a qube {name}, which no package looks after")
    words = ["--really", "--no-installed-by-rpm"]
    words += ["--allow-pv"] if arguments.allow_pv else []
    words += ["--skip-start"] if arguments.skip_start else []
    pool = getattr(arguments, "pool", None)
    words += ["--pool", pool] if pool else []
    with tempfile.TemporaryDirectory(dir=arguments.cachedir) as scratch:
        unpacked = unpack(path, name, Path(scratch))
        say(_PROGRAM, f"installing {name}")
        code = qvm_template_postprocess.main(
            [*words, "--keep-source", "post-install", "--", name, str(unpacked)]
        )
    if code:
        raise ReportableError(f"{name} could not be installed")
    mark(app.domains[name], package)


def confirm_overwriting(packages: Sequence[Package]) -> None:
    """Ask before what was changed in templates is lost.

    Raises:
        NotConfirmedError: the answer was no.
    """
    print("This overwrites, with all changes made in them:")
    for package in packages:
        print(f"  {package.name}")
    if not confirmed("Are you sure? [y/N] "):
        raise NotConfirmedError


def empty(directory: Path) -> None:
    """Remove everything that was downloaded."""
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
