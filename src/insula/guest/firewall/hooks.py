"""Programs of a qube's owner, run when the firewall starts (network-firewall.md section 9)."""

import os
import subprocess

from insula.guest.folders import names_in
from insula.guest.scripts import has_something_to_do

_FROM_TEMPLATE = "/etc/qubes/qubes-firewall.d"
_OWN = "/rw/config/qubes-firewall.d"
_OWN_SCRIPT = "/rw/config/qubes-firewall-user-script"
_OWN_ARE_NOT_USED = "/run/qubes-service/custom-persist"
_TIMEOUT = 60.0  # seconds; until they are over, clients wait


def run() -> None:
    """Run them one after the other; one that fails or hangs keeps nobody from the others."""
    paths = names_in(_FROM_TEMPLATE)
    if not os.path.exists(_OWN_ARE_NOT_USED):  # noqa: PTH110 - on a provider's way up
        paths += [*names_in(_OWN), _OWN_SCRIPT]
    for path in filter(has_something_to_do, paths):
        try:
            subprocess.run([path], stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"firewall hook: {error}", flush=True)
