"""The services that dom0 has of itself: the daemon's own sockets, and programs."""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from insula.daemon.admin.dispatch import SOCKETS
from insula.daemon.admin.streams import STREAMS

DIRECTORY = "qubes-rpc"
_ADMIN, _MISC = "qubesd.sock", "qubesd.misc.sock"
_POLICY = "policy."
_CONSOLE = "admin.vm.Console"
_RUN = "#!/bin/sh\nexec {} -P -s -m insula.{}\n"
_IMPORT = (
    "#!/bin/sh\nexec {} -P -s -c 'import sys; from insula.tools.volume_import import {} as main; "
    'sys.exit(main())\' "$@"\n'
)
_FACING_QUBES = {
    "qubes.Notifications": "dom0.notifications",
    "qubes.SyncAppMenus": "dom0.sync_app_menus",
}
_IMPORTS = {"admin.vm.volume.Import": "own_size", "admin.vm.volume.ImportWithSize": "with_size"}
# Of these an installation of Qubes has links (admin-api.md section 1.3), and they come to nothing.
_OF_NO_METHOD = (
    *("admin.property.HelpRst", "admin.vm.property.HelpRst", "admin.vm.firewall.Flush"),
    *("admin.vm.firewall.GetPolicy", "admin.vm.firewall.SetPolicy"),
)
_FOR_DOM0_ALONE = frozenset(
    (
        *("admin.vm.Suspend", "admin.vm.Resume", "admin.vm.Create.AdminVM"),
        *("admin.vm.Create.RemoteVM", "admin.vm.CreateInPool.AdminVM"),
        "admin.vm.CreateInPool.RemoteVM",
    )
)


def link_services(run: Path) -> Path:
    """Make the directory of them: most methods are links to the socket that serves them.

    Those about the policy, and those by which qubes tell of themselves, answer in another form over
    qrexec; a console and data for volumes do not pass the daemon. Programs are copied: a package of
    Python keeps no permissions.
    """
    place = run / DIRECTORY
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    for method in (*SOCKETS[_ADMIN], *STREAMS, *_OF_NO_METHOD):
        if method.startswith(_POLICY):
            _write(place / method, _RUN.format(sys.executable, "dom0.policy_admin").encode())
        elif method == _CONSOLE:
            _write(place / method, _RUN.format(sys.executable, "tools.console_service").encode())
        elif method not in _FOR_DOM0_ALONE:
            (place / method).symlink_to(f"../{_ADMIN}")
    for method, main in _IMPORTS.items():
        _write(place / method, _IMPORT.format(sys.executable, main).encode())
    for method in SOCKETS[_MISC]:
        _write(place / method, _RUN.format(sys.executable, "dom0.notify").encode())
    for service, module in _FACING_QUBES.items():
        _write(place / service, _RUN.format(sys.executable, module).encode())
    for program in (files("insula") / "dom0" / "files" / "qubes-rpc").iterdir():
        _write(place / program.name, program.read_bytes())
    return place


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o700)
