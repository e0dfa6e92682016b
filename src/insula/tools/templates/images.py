"""The root image in a package's directory, in whichever form it is there."""

import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from insula.protocol.errors import ReportableError

_IMAGE, _TAR, _PART, _PACKAGE = "root.img", "root.img.tar", "root.img.part.", "template.rpm"


@contextmanager
def root_image(directory: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The image as a stream, and its size.

    Raises:
        ReportableError: there is none, or it cannot be read.
    """
    parts = sorted(path for path in directory.glob(f"{_PART}*") if path.is_file())
    if (path := directory / _IMAGE).is_file():
        with path.open("rb") as file:
            yield file, path.stat().st_size
    elif (path := directory / _TAR).is_file():
        with path.open("rb") as file, _in_tar(file) as found:
            yield found
    elif parts:
        with _Joined(parts) as joined, _in_tar(cast("BinaryIO", joined)) as found:
            yield found
    elif (path := directory / _PACKAGE).exists():
        with _parts_in_package(path) as stream, _in_tar(stream) as found:
            yield found
    else:
        raise ReportableError(f"there is no root image in {directory}")


@contextmanager
def _in_tar(stream: BinaryIO) -> Iterator[tuple[BinaryIO, int]]:
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isreg() and Path(member.name).name == _IMAGE:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield cast("BinaryIO", file), member.size
                    return
    except tarfile.TarError as error:
        raise ReportableError(f"the root image cannot be read: {error}") from None
    raise ReportableError(f"there is no {_IMAGE} in the archive")


class _Joined:
    """Files read one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._left = list(paths)
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_Joined":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer than asked for at the end of a file."""
        while True:
            if self._file is None:
                if not self._left:
                    return b""
                self._file = self._left.pop(0).open("rb")
            if data := self._file.read(size):
                return data
            self._file.close()
            self._file = None


@contextmanager
def _parts_in_package(package: Path) -> Iterator[BinaryIO]:
    """The parts' content, taken out of a package without laying them down."""
    try:
        with (
            subprocess.Popen(["rpm2cpio", package], stdout=subprocess.PIPE) as unpacking,
            subprocess.Popen(
                ["cpio", "--quiet", "--extract", "--to-stdout", f"*/{_PART}*"],
                stdin=unpacking.stdout,
                stdout=subprocess.PIPE,
            ) as choosing,
        ):
            assert choosing.stdout is not None
            yield cast("BinaryIO", choosing.stdout)
            choosing.stdout.close()
            assert unpacking.stdout is not None
            unpacking.stdout.close()
    except FileNotFoundError as error:
        missing = ReportableError(f"{error.filename} is not installed")
        missing.hint = "Install it with: apt-get install rpm2cpio cpio"
        raise missing from None
