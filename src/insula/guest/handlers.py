"""Which program opens a file: mimeapps.list and desktop entries, as the desktop specifications say.

A qube has no desktop that could be asked, and what xdg-open does without one depends on what
happens to be installed.
"""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from insula.protocol.desktop_entries import ENTRY_GROUP, group_of

_DEFAULTS = "[Default Applications]"
_ADDED = "[Added Associations]"
_FILE_CODES = ("%f", "%F", "%u", "%U")


def default_handlers(mimeapps: str, mime_type: str) -> list[str]:
    """Desktop entries that a mimeapps.list names for a type, the preferred first."""
    found: list[str] = []
    for group in (_DEFAULTS, _ADDED):
        value = group_of(mimeapps, group).get(mime_type, "")
        found += [name for name in value.split(";") if name]
    return found


def command_of(entry: str, path: str) -> list[str] | None:
    """The words that open path with a desktop entry; None when it cannot open files."""
    fields = group_of(entry, ENTRY_GROUP)
    try:
        words = shlex.split(fields.get("Exec", ""))
    except ValueError:
        return None
    if not words or fields.get("Hidden") == "true":
        return None
    command: list[str] = []
    for word in words:
        if word in _FILE_CODES:
            command.append(path)
        elif not word.startswith("%") or word == "%%":
            command.append(word.replace("%%", "%"))
    return command if path in command else [*command, path]


def handles(entry: str, mime_type: str) -> bool:
    """Whether a desktop entry says that it opens a type."""
    return mime_type in group_of(entry, ENTRY_GROUP).get("MimeType", "").split(";")


def broader(mime_type: str) -> list[str]:
    """A type, then what it also is."""
    found = [mime_type]
    if mime_type.startswith("text/") and mime_type != "text/plain":
        found.append("text/plain")
    return found


def find_command(mime_type: str, path: str) -> list[str] | None:
    """The words that open a file of a type in this qube; None when nothing does."""
    for one in broader(mime_type):
        for folder in _mimeapps_folders():
            for name in default_handlers(_read(folder / "mimeapps.list"), one):
                entry = _entry(name)
                if entry and (command := command_of(entry, path)) is not None:
                    return command
        for entry in _all_entries():
            if handles(entry, one) and (command := command_of(entry, path)) is not None:
                return command
    return None


def _mimeapps_folders() -> list[Path]:
    """Where a mimeapps.list may lie, the user's own first."""
    home = Path.home()
    config = [os.environ.get("XDG_CONFIG_HOME") or home / ".config"]
    config += (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    return [*map(Path, config), *(folder / "applications" for folder in data_folders())]


def data_folders() -> list[Path]:
    """Where desktop entries may lie, the user's own folder first."""
    own = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [Path(own), *map(Path, shared.split(":"))]


def _entry(name: str) -> str:
    """A desktop entry by its id; dashes of an id may stand for directories."""
    for folder in data_folders():
        applications = folder / "applications"
        for candidate in (name, name.replace("-", "/", 1)):
            if ".." not in candidate and (text := _read(applications / candidate)):
                return text
    return ""


def _all_entries() -> Iterator[str]:
    for folder in data_folders():
        yield from map(_read, sorted(folder.glob("applications/**/*.desktop")))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
