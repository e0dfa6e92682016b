"""Paths that persist beside /home and /usr/local (in-qube.md 2.5).

Configuration is read, not sourced: `binds+=( 'path' ... )` and `binds=()`, one or more lines.
"""

import re
import shutil
from pathlib import Path

from insula.guest.folders import names_in
from insula.guest.mounts import bind

_DIRECTORIES = (
    "/usr/lib/qubes-bind-dirs.d",
    "/etc/qubes-bind-dirs.d",
    "/rw/config/qubes-bind-dirs.d",
)
_STATEMENT = re.compile(r"binds(\+?)=\(([^()]*)\)\s*", re.ASCII)
_WORD = re.compile(r"""\s*(?:'([^']*)'|"([^"$`\\]*)"|([^\s'"$`\\;&|<>]+))""")
_SYMLINK_LEVELS = 10


class BindDirsError(Exception):
    """A configuration file holds something else than binds."""


def parse_binds(text: str, before: list[str]) -> list[str]:
    """The binds after a file's statements, given those before it.

    Raises:
        BindDirsError: it holds anything but such statements and comments.
    """
    binds = list(before)
    rest = re.sub(r"(?m)^\s*#.*$", "", text).strip()
    while rest:
        statement = _STATEMENT.match(rest)
        if statement is None:
            raise BindDirsError(f"not understood: {rest.splitlines()[0]!r}")
        if not statement.group(1):
            binds = []
        binds += _words(statement.group(2))
        rest = rest[statement.end() :].lstrip("; \t\n")
    return binds


def _words(text: str) -> list[str]:
    words = []
    at = 0
    while text[at:].strip():
        word = _WORD.match(text, at)
        if word is None:
            raise BindDirsError(f"not understood: {text[at:].strip()!r}")
        words.append(next(group for group in word.groups() if group is not None))
        at = word.end()
    return words


def apply(report: list[str]) -> None:
    """Bind everything that is configured; what cannot be is reported and left out."""
    binds: list[str] = []
    for directory in _DIRECTORIES:
        for file in names_in(directory, ".conf"):
            try:
                binds = parse_binds(Path(file).read_text(), binds)
            except (OSError, ValueError, BindDirsError) as error:
                report.append(f"{file}: {error}")
    for path in binds:
        try:
            _bind(path)
        except OSError as error:
            report.append(f"bind-dirs {path}: {error}")


def storage_of(path: str) -> str:
    """Where a path's persistent content lies."""
    for prefix, place in (("/home/", "/rw/home/"), ("/usr/local/", "/rw/usrlocal/")):
        if path.startswith(prefix):
            return place + path.removeprefix(prefix)
    return "/rw/bind-dirs" + path


def _bind(path: str) -> None:
    for _ in range(_SYMLINK_LEVELS):
        if not Path(path).is_symlink():
            break
        path = str(Path(path).resolve())
    shown, stored = Path(path), Path(storage_of(path))
    if stored.exists():
        if not shown.exists():
            if stored.is_dir():
                shown.mkdir(parents=True)
            else:
                shown.parent.mkdir(parents=True, exist_ok=True)
                shown.touch()
    elif shown.is_dir():
        shutil.copytree(shown, stored, symlinks=True)
    elif shown.exists():
        stored.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(shown, stored)
    else:
        return
    bind(str(stored), str(shown))
