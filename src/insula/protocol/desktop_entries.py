"""Desktop files as text (freedesktop.org's Desktop Entry Specification)."""

import re

_PLAIN = re.compile(r"[A-Za-z0-9_./:=+@,-]+", re.ASCII)
ENTRY_GROUP = "[Desktop Entry]"


def group_of(text: str, group: str) -> dict[str, str]:
    """The keys of one group of a desktop file; comments and other lines are passed over."""
    found: dict[str, str] = {}
    current = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped
        elif current == group and "=" in stripped and not stripped.startswith("#"):
            key, _, value = stripped.partition("=")
            found.setdefault(key.rstrip(), value.lstrip())
    return found


def escaped(value: str) -> str:
    """A value as a line of a desktop file has it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def exec_line(words: list[str]) -> str:
    """The value of a key Exec that runs these words, whatever is in them."""
    return escaped(" ".join(map(_quoted, words)))


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    for special in ("\\", '"', "`", "$"):
        word = word.replace(special, f"\\{special}")
    return '"' + word.replace("%", "%%") + '"'
