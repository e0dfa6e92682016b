"""What a look at the host found."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

_SYSTEMD = Path("/run/systemd/system")


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at the host. level: ok, warning (works, with a loss) or lack.

    fix: lines for a shell that mend it; what no line can do is a shell's comment.
    """

    subject: str
    level: str
    text: str
    fix: tuple[str, ...] = ()


def sudo() -> str:
    """What goes before a command that only root may run."""
    return "" if os.geteuid() == 0 else "sudo "


def user_name() -> str:
    """The login name of whoever runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def runs_systemd() -> bool:
    """Whether systemd is this host's init."""
    return _SYSTEMD.is_dir()


def can_be_made(path: Path) -> bool:
    """Whether this user may write to a directory, or make it."""
    nearest = next(place for place in (path, *path.parents) if os.access(place, os.F_OK))
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def nearest_directory(path: Path) -> Path:
    """The directory, or the one in which it would be made."""
    return next(place for place in (path, *path.parents) if place.is_dir())
