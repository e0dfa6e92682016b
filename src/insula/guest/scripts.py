"""Programs that a qube's owner wants run while it starts (in-qube.md 2.2)."""

import os
import stat
import subprocess
from collections.abc import Callable

from insula.guest.folders import names_in

_TIMEOUT = 300  # seconds
_SHORT = 1024  # bytes; a longer script is run without a look


class Scripts:
    """Runs them, and reports those that fail. let_others_run is called before the first."""

    def __init__(self, report: list[str], let_others_run: Callable[[], None]) -> None:
        self._report = report
        self._let_others_run = let_others_run

    def all_of(self, directory: str, file: str) -> None:
        """Run DIRECTORY/*.rc and then FILE, those that are executable."""
        for path in (*names_in(directory, ".rc"), file):
            if has_something_to_do(path):
                self._run(path)

    def _run(self, path: str) -> None:
        self._let_others_run()
        try:
            subprocess.run([path], stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            self._report.append(f"{path}: {error}")


def has_something_to_do(path: str) -> bool:
    """Whether a file is executable and not all comment, as a private volume's first ones are."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
            return False
        text = os.read(descriptor, _SHORT)
    finally:
        os.close(descriptor)
    comment = all(not line or line.startswith(b"#") for line in text.split(b"\n"))
    return not comment or len(text) == _SHORT
