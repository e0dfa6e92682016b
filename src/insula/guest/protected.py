"""Files of a qube that its owner does not want changed (in-qube.md section 2.2)."""

from contextlib import suppress
from pathlib import Path

from insula.guest.folders import names_in


def protected_files(config: str = "/rw/config") -> set[str]:
    """Files that are to be left alone. config: of the qube's owner."""
    found: set[str] = set()
    for directory in ("/etc/qubes/protected-files.d", f"{config}/protected-files.d"):
        for file in names_in(directory):
            with suppress(OSError, ValueError):
                found.update(Path(file).read_text().splitlines())
    return found
