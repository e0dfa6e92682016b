"""One instance of Insula: where its state and its sockets lie, whether it is up.

`INSULA_HOME` and `INSULA_RUN` set one instance apart from another. Commands that only need a
socket's name do not load `pathlib`, which is a third of what they load.
"""

import os
import socket
from typing import TYPE_CHECKING

from insula.protocol.errors import ReportableError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SOCKET_PATH = 107  # bytes; the kernel's limit of an AF_UNIX address
ADMIN_SOCKET = "qubesd.sock"
_LONGEST_NAME = len("/qubesd.internal.sock")
_ADMIN_MARK = "/etc/qubes-release"
_AGENT = "/run/qubes/qrexec-agent"


def home() -> "Path":
    """Persistent state: INSULA_HOME, else $XDG_DATA_HOME/insula."""
    from pathlib import Path  # noqa: PLC0415

    if given := os.environ.get("INSULA_HOME"):
        return Path(given).absolute()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base, "insula")


def cache() -> "Path":
    """What can be made again: INSULA_CACHE, else $XDG_CACHE_HOME/insula."""
    from pathlib import Path  # noqa: PLC0415

    if given := os.environ.get("INSULA_CACHE"):
        return Path(given).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "insula")


def run() -> "Path":
    """Sockets: INSULA_RUN, else $XDG_RUNTIME_DIR/insula.

    Raises:
        ReportableError: the path leaves no room for a socket's name.
    """
    from pathlib import Path  # noqa: PLC0415

    return Path(_run())


def socket_path(name: str) -> str:
    """The path of one of the instance's sockets.

    Raises:
        ReportableError: the path leaves no room for a socket's name.
    """
    return f"{_run()}/{name}"


def in_qube() -> bool:
    """Whether we run in a qube, from where the daemon is reached by calls alone.

    An instance of this host's own, nested in the qube, is nearer.
    """
    if os.environ.get("INSULA_RUN") or not os.path.exists(_AGENT):  # noqa: PTH110
        return False
    return not os.path.exists(_ADMIN_MARK) and not os.path.exists(_run())  # noqa: PTH110


def _run() -> str:
    if given := os.environ.get("INSULA_RUN"):
        found = os.path.abspath(given)  # noqa: PTH100
    elif base := os.environ.get("XDG_RUNTIME_DIR"):
        found = f"{base}/insula"
    else:
        found = "/run/insula" if os.geteuid() == 0 else f"/run/user/{os.getuid()}/insula"
    if len(os.fsencode(found)) + _LONGEST_NAME > MAX_SOCKET_PATH:
        error = ReportableError(f"{found} is too long for the sockets in it")
        error.hint = f"Set INSULA_RUN to a path of at most {MAX_SOCKET_PATH - _LONGEST_NAME} bytes."
        raise error
    return found


def answers(path: "Path", kind: int = socket.SOCK_STREAM) -> bool:
    """Whether something listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
