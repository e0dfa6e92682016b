"""How a net qube can reach what is beyond this computer."""

import os
import shutil
import subprocess
from pathlib import Path

from insula.tools.doctor.finding import Finding, sudo

TUN = Path("/dev/net/tun")
ROUTES, ROUTES6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
PROBE_TIMEOUT = 15.0
_SUBJECT = "uplink"
_TRY = (
    *("pasta", "--config-net", "--no-map-gw", "-q", "-f"),
    *("-t", "none", "-u", "none", "-T", "none", "-U", "none", "--", "true"),
)
_NOWHERE = "00000000"
_NOWHERE6 = "0" * 32


def uplink() -> Finding:
    """Whether passt can be a net qube's way out, tried where that can be done as oneself."""
    if shutil.which("pasta") is None:
        text = "passt is not installed: net qubes have no way out"
        fix = f"{sudo()}apt-get install --no-install-recommends passt"
        return Finding(_SUBJECT, "lack", text, (fix,))
    if not TUN.exists():
        return Finding(_SUBJECT, "lack", f"there is no {TUN}", (f"{sudo()}modprobe tun",))
    if not os.access(TUN, os.R_OK | os.W_OK):
        text = f"{TUN} cannot be opened by this user"
        return Finding(_SUBJECT, "lack", text, (f"{sudo()}chmod 666 {TUN}",))
    if not _has_route():
        text = "passt, once this computer has a default route: it has none now"
        return Finding(_SUBJECT, "warning", text)
    if os.geteuid() != 0 and (complaint := _complaint()):
        return Finding(_SUBJECT, "lack", f"passt cannot be used: {complaint}")
    return Finding(_SUBJECT, "ok", "passt: net qubes reach what this computer reaches")


def _has_route() -> bool:
    """Whether there is a way to everywhere, of either family."""
    lines = ROUTES.read_text().splitlines()[1:] if ROUTES.exists() else []
    lines6 = ROUTES6.read_text().splitlines() if ROUTES6.exists() else []
    for words in (line.split() for line in lines):
        if words[1] == words[7] == _NOWHERE:
            return True
    for words in (line.split() for line in lines6):
        if words[0] == _NOWHERE6 and words[1] == "00" and words[9] != "lo":
            return True
    return False


def _complaint() -> str | None:
    try:
        done = subprocess.run(_TRY, capture_output=True, timeout=PROBE_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if said else "it was refused"
