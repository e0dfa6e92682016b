"""Programs that are called."""

import os
import shutil

from insula.tools.doctor.finding import Finding, sudo

PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "bwrap": "bubblewrap",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "mke2fs": "e2fsprogs",
}


def programs() -> Finding:
    """Whether the programs are there, also those that ordinary users do not search for."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = {name for name in PROGRAMS if shutil.which(name, path=path) is None}
    if not missing:
        return Finding("programs", "ok", "all are installed")
    packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
    text = f"not installed: {', '.join(sorted(missing))}"
    fix = f"{sudo()}apt-get install --no-install-recommends {packages}"
    return Finding("programs", "lack", text, (fix,))
