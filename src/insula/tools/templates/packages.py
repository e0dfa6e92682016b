"""Files of packages: whether they are signed, what they say of themselves, what is in them.

rpm's own programs do it; without them no package is touched.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from insula.protocol.errors import ProtocolError, ReportableError
from insula.tools.templates.records import PREFIX, Package, parse_answer

FIELDS = (
    "NAME", "EPOCHNUM", "VERSION", "RELEASE", "BUILDTIME", "LICENSE", "URL", "SUMMARY",
    "DESCRIPTION",
)  # fmt: skip
SEPARATOR = "\x1f"
COMMAND_LINE = "@commandline"
_INSIDE = "var/lib/qubes/vm-templates"
_PARTS = "*root.img.part.*"
_GOOD = "digests signatures OK"


class UnsignedError(ReportableError):
    """A package's signature is missing, or not by a key that was expected."""


class NoProgramError(ReportableError):
    """A program of rpm's is not there."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program} is not installed; without it no package is trusted")
        self.hint = "Install it with: apt-get install rpm rpm2cpio cpio"


def check_signature(package: Path, keys: Sequence[Path]) -> None:
    """Whether a package is signed with one of these keys, all of it.

    Raises:
        UnsignedError: it is not.
        NoProgramError: that cannot be found out.
    """
    missing = [str(key) for key in keys if not key.is_file()]
    if missing or not keys:
        raise UnsignedError(
            f"there is no key {', '.join(missing)}" if missing else "no key is named"
        )
    with tempfile.TemporaryDirectory() as database:
        base = ["rpmkeys", "--dbpath", database]
        output([*base, "--import", *map(str, keys)])
        checking = ["--define", "_pkgverify_level all", "--checksig"]
        said = output([*base, *checking, str(package.absolute())], check=False)
    if said.strip() != f"{package.absolute()}: {_GOOD}":
        raise UnsignedError(f"{package.name} is not signed with the key of its repository")


def read_header(package: Path, repository: str = COMMAND_LINE) -> Package:
    """What a package says of itself.

    Raises:
        ReportableError: it is no template's package.
    """
    asked = SEPARATOR.join(f"%{{{field}}}" for field in FIELDS)
    with tempfile.TemporaryDirectory() as database:
        words = ["rpm", "--dbpath", database, "-qp", "--nosignature", "--qf", asked]
        said = output([*words, str(package.absolute())])
    fields = said.replace("|", " ").split(SEPARATOR)
    if len(fields) != len(FIELDS) or not fields[0].startswith(PREFIX):
        raise ReportableError(f"{package.name} is no package of a template")
    *name_and_version, built, license_, url, summary, description = fields
    size = str(package.stat().st_size)
    record = [*name_and_version, repository, size, built, license_, url, summary, description]
    try:
        (found,) = parse_answer(("|".join(record) + "|\n").encode("ascii", "replace"))
    except ProtocolError as error:
        raise ReportableError(f"{package.name}: {error}") from None
    return found


def unpack(package: Path, name: str, directory: Path) -> Path:
    """Lay out a template's files; its image stays in the package, which is linked.

    Raises:
        ReportableError: it does not hold them.
    """
    try:
        with subprocess.Popen(["rpm2cpio", package.absolute()], stdout=subprocess.PIPE) as reading:
            taking = ["cpio", "--quiet", "--extract", "--make-directories", "--nonmatching"]
            code = subprocess.run(
                [*taking, "--no-absolute-filenames", _PARTS],
                stdin=reading.stdout,
                cwd=directory,
                check=False,
            ).returncode
    except FileNotFoundError as error:
        raise NoProgramError(error.filename) from None
    found = directory / _INSIDE / name
    if code or reading.returncode or not found.is_dir():
        raise ReportableError(f"{package.name} does not hold the files of a template {name}")
    with suppress(FileExistsError):
        (found / "template.rpm").symlink_to(package.absolute())
    return found


def output(words: Sequence[str], *, check: bool = True) -> str:
    """What a program prints.

    Raises:
        NoProgramError: it is not there.
        ReportableError: it fails.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, check=False
        )
    except FileNotFoundError:
        raise NoProgramError(words[0]) from None
    if check and done.returncode:
        raise ReportableError(f"{words[0]} failed (status {done.returncode})")
    return done.stdout.decode("utf-8", "replace")
