"""Programs that a qube's owner wants run while it starts (in-qube.md 2.2)."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_TIMEOUT = 300  # seconds


class Scripts:
    """Runs them, and reports those that fail. let_others_run is called before the first."""

    def __init__(self, report: list[str], let_others_run: Callable[[], None]) -> None:
        self._report = report
        self._let_others_run = let_others_run

    def all_of(self, directory: str, file: str) -> None:
        """Run DIRECTORY/*.rc and then FILE, those that are executable."""
        names: list[str] = []
        with suppress(FileNotFoundError):
            names = sorted(entry.path for entry in os.scandir(directory))
        for path in (*(name for name in names if name.endswith(".rc")), file):
            if os.access(path, os.X_OK) and os.path.isfile(path) and not _is_comment(path):  # noqa: PTH113
                self._run(path)

    def _run(self, path: str) -> None:
        self._let_others_run()
        try:
            subprocess.run([path], stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            self._report.append(f"{path}: {error}")


def _is_comment(path: str) -> bool:
    """Whether a script does nothing, as the one that every private volume begins with."""
    with suppress(OSError, UnicodeDecodeError):
        lines = Path(path).read_text().splitlines()
        return all(not line.strip() or line.lstrip().startswith("#") for line in lines)
    return False
