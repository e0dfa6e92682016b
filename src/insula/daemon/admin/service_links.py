"""The services that dom0 has of itself: the daemon's own sockets, and programs."""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from insula.daemon.admin.dispatch import SOCKETS

DIRECTORY = "qubes-rpc"
_POLICY = "policy."
_RUN = "#!/bin/sh\nexec {} -P -s -m insula.dom0.{}\n"
_FOR_QUBES = ("qubesd.sock", "qubesd.misc.sock")


def link_services(run: Path) -> Path:
    """Make the directory of them: most methods are links to the socket that serves them.

    Those about the policy answer in another form over qrexec. Programs are copied: a package of
    Python keeps no permissions.
    """
    place = run / DIRECTORY
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    for socket_name in _FOR_QUBES:
        for method in SOCKETS[socket_name]:
            if method.startswith(_POLICY):
                _write(place / method, _RUN.format(sys.executable, "policy_admin").encode())
            else:
                (place / method).symlink_to(f"../{socket_name}")
    for program in (files("insula") / "dom0" / "files" / "qubes-rpc").iterdir():
        _write(place / program.name, program.read_bytes())
    return place


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o700)
