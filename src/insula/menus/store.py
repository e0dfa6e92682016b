"""What is kept of the applications of each qube: a list as it was accepted, and their pictures."""

import fcntl
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from insula.client import instance
from insula.menus.pictures import MAX_SIDE, Picture
from insula.protocol.errors import ReportableError
from insula.protocol.menus import Application

_FOLDER = "menus"
_LIST = "applications.json"
_LOCK = ".lock"
_SIDES = 4  # bytes before the pixels of a kept picture


class BusyError(ReportableError):
    """Another one changes the same."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A qube's applications. told: by the qube itself, rather than by what made its template."""

    applications: dict[str, Application] = field(default_factory=dict)
    told: bool = False


class Store:
    """Of one instance, or of what another root than its home holds."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or instance.home() / _FOLDER

    def qubes(self) -> list[str]:
        """Of which something is kept."""
        if not self._root.is_dir():
            return []
        return sorted(each.name for each in self._root.iterdir() if not each.name.startswith("."))

    def of(self, qube: str) -> Kept:
        """What is kept of a qube."""
        try:
            fields = json.loads((self._root / qube / _LIST).read_text())
            found = {
                each["id"]: Application(**each | {"categories": tuple(each["categories"])})
                for each in fields["applications"]
            }
            return Kept(found, bool(fields["told"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Kept()

    def keep(self, qube: str, kept: Kept) -> bool:
        """Keep a qube's applications instead of what was kept; whether that is a change."""
        if kept == self.of(qube) and (self._root / qube / _LIST).exists():
            return False
        fields = {"told": kept.told, "applications": [*map(asdict, kept.applications.values())]}
        self._write(self._root / qube / _LIST, json.dumps(fields, indent=1).encode())
        for path in self._pictures(qube):
            if path.name not in kept.applications:
                path.unlink()
        return True

    def picture(self, qube: str, application: str) -> Picture | None:
        """The picture of one of its applications."""
        try:
            data = zlib.decompress((self._root / qube / "pictures" / application).read_bytes())
        except (OSError, zlib.error):
            return None
        width, height = (int.from_bytes(data[at : at + 2]) for at in (0, 2))
        pixels = data[_SIDES:]
        return Picture(width, height, pixels) if len(pixels) == width * height * 4 else None

    def keep_picture(self, qube: str, application: str, picture: Picture) -> None:
        """Keep the picture of one of its applications, which is at most MAX_SIDE on a side."""
        assert max(picture.width, picture.height) <= MAX_SIDE
        sides = picture.width.to_bytes(2) + picture.height.to_bytes(2)
        path = self._root / qube / "pictures" / application
        self._write(path, zlib.compress(sides + picture.pixels))

    def copy(self, source: str, qube: str) -> None:
        """Keep of a qube what is kept of another."""
        if (self._root / source).is_dir() and source != qube:
            shutil.rmtree(self._root / qube, ignore_errors=True)
            shutil.copytree(self._root / source, self._root / qube)

    def forget(self, qube: str) -> None:
        """Keep nothing of a qube any more."""
        shutil.rmtree(self._root / qube, ignore_errors=True)

    @contextmanager
    def only_changer(self, what: str, *, wait: bool = True) -> Iterator[None]:
        """Nobody else is in such a block for the same, a qube's name or the whole menu.

        Raises:
            BusyError: somebody is, and is not to be waited for.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._root / f"{_LOCK}-{what}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise BusyError(f"the menu of {what} is being changed") from None
            yield
        finally:
            os.close(lock)

    def _pictures(self, qube: str) -> list[Path]:
        with suppress(OSError):
            return list((self._root / qube / "pictures").iterdir())
        return []

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, content)


def write(path: Path, content: bytes) -> None:
    """Give a file its content, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
