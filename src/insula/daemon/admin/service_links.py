"""The services that dom0 has of itself: the daemon's own sockets, and programs."""

import shutil
from importlib.resources import files
from pathlib import Path

from insula.daemon.admin.dispatch import SOCKETS

DIRECTORY = "qubes-rpc"
_FOR_QUBES = ("qubesd.sock", "qubesd.misc.sock")


def link_services(run: Path) -> Path:
    """Make the directory of them, in which each method is a link to the socket that serves it.

    Programs are copied: a package of Python keeps no permissions.
    """
    place = run / DIRECTORY
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    for socket_name in _FOR_QUBES:
        for method in SOCKETS[socket_name]:
            (place / method).symlink_to(f"../{socket_name}")
    for program in (files("insula") / "dom0" / "files" / "qubes-rpc").iterdir():
        copy = place / program.name
        copy.write_bytes(program.read_bytes())
        copy.chmod(0o700)
    return place
