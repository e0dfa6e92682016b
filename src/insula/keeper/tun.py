"""The device by which a way out makes a network of its own, for the user who is to make one."""

import os
import stat
from contextlib import suppress
from pathlib import Path

_DEVICE = Path("/dev/net/tun")
_ANYBODY = 0o006


def tun_for(uid: int | None) -> str:
    """A path of the device that a user may open.

    Systems let everybody open it: it gives nothing in a network that is not one's own. Where this
    one does not and we are root, the user gets a node.

    Raises:
        OSError: there is no such device, or no node can be made.
    """
    found = _DEVICE.stat()
    if uid is None or found.st_mode & _ANYBODY == _ANYBODY:
        return str(_DEVICE)
    node = _node(uid)
    with suppress(FileExistsError):
        os.mknod(node, stat.S_IFCHR | 0o600, found.st_rdev)
        os.chown(node, uid, uid)
    return str(node)


def give_back(uid: int | None) -> None:
    """Remove what was made for a user."""
    if uid is not None:
        with suppress(OSError):
            _node(uid).unlink()


def _node(uid: int) -> Path:
    return _DEVICE.with_name(f"insula-{uid}")
