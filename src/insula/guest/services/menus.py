"""The services qubes.GetAppmenus and qubes.StartApp, and qubes-desktop-run (in-qube.md 4.3)."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from insula.guest.handlers import data_folders
from insula.protocol.desktop_entries import ENTRY_GROUP, group_of
from insula.protocol.menus import SUFFIX, told_of

_RUN = Path("/run/qubes")  # where markers of what a qube keeps lie


def get_appmenus() -> int:
    """Print each application's keys."""
    for name, path in applications(persistent_folders()):
        for line in told_of(name, _read(path)):
            print(line)
    return 0


def start_app(words: Sequence[str] | None = None) -> int:
    """Start an application by its id, which has no suffix."""
    (name,) = sys.argv[1:] if words is None else words
    return _start(f"{name}{SUFFIX}")


def desktop_run(words: Sequence[str] | None = None) -> int:
    """qubes-desktop-run FILE.desktop"""
    given = list(sys.argv[1:] if words is None else words)
    if len(given) != 1:
        print("usage: qubes-desktop-run FILE.desktop", file=sys.stderr)
        return 1
    return _start(Path(given[0]).name)


def _start(wanted: str) -> int:
    for name, path in applications(data_folders()):
        if name == wanted:
            words = command(group_of(_read(path), ENTRY_GROUP).get("Exec", ""))
            if words:
                return subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    print(f"there is no application {wanted}", file=sys.stderr)
    return 1


def command(line: str) -> list[str]:
    """The words of an Exec line, with nothing to open."""
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    kept = (word for word in words if not (len(word) == 2 and word[0] == "%" and word != "%%"))
    return [word.replace("%%", "%") for word in kept]


def applications(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Each desktop file's id and path; the first of an id counts."""
    seen = set()
    for folder in folders:
        top = folder / "applications"
        for path in sorted(top.glob(f"**/*{SUFFIX}")):
            name = str(path.relative_to(top)).replace("/", "-")
            if name not in seen:
                seen.add(name)
                yield name, path


def persistent_folders() -> list[Path]:
    """The data folders whose content this qube keeps."""
    if (_RUN / "persistent-none").exists():
        return []
    folders = data_folders()
    if not (_RUN / "persistent-rw-only").exists():
        return folders
    private = _device(Path("/rw"))
    return [folder for folder in folders if folder.is_dir() and _device(folder) == private]


def _device(path: Path) -> int:
    try:
        return path.stat().st_dev
    except OSError:
        return -1


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
