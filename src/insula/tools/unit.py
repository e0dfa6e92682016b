"""The systemd user unit, for those who want their instance started at login."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from insula.protocol.errors import ReportableError

NAME = "insula.service"
_TIMEOUT = 30.0  # seconds


def unit_text(command: Path) -> str:
    """The unit, for an `insula` at this path."""
    template = (Path(__file__).parent / "files" / NAME).read_text()
    return template.replace("@INSULA@", _quoted(str(command)))


def install() -> Path:
    """Write the unit where the user's systemd looks for it, and tell that systemd; returns where.

    Raises:
        ReportableError: it cannot be written.
    """
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    path = Path(base, "systemd", "user", NAME)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit_text(own_command()))
    except OSError as error:
        raise ReportableError(f"{path} cannot be written: {error.strerror}") from None
    # Where no systemd runs for this user now, the next one finds the unit by itself.
    with suppress(OSError, subprocess.SubprocessError):
        reload = ["systemctl", "--user", "daemon-reload"]
        subprocess.run(reload, capture_output=True, timeout=_TIMEOUT, check=False)
    return path


def own_command() -> Path:
    """The `insula` of the Python that runs this."""
    return Path(sys.executable).parent / "insula"


def _quoted(word: str) -> str:
    """A word of a command line, as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word
