"""The daemon's own sockets as services of dom0, which qubes may call where the policy lets them."""

import shutil
from pathlib import Path

from insula.daemon.admin.dispatch import SOCKETS

DIRECTORY = "qubes-rpc"
_FOR_QUBES = ("qubesd.sock", "qubesd.misc.sock")


def link_services(run: Path) -> Path:
    """Make the directory in which each method is a link to the socket that serves it."""
    place = run / DIRECTORY
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    for socket_name in _FOR_QUBES:
        for method in SOCKETS[socket_name]:
            (place / method).symlink_to(f"../{socket_name}")
    return place
