"""Swap that is not encrypted keeps qubes' memory on disk."""

import os
import re
import stat
from pathlib import Path

from insula.tools.doctor.finding import Finding, sudo

SWAPS = Path("/proc/swaps")
BLOCKS = Path("/sys/dev/block")
FSTAB = Path("/etc/fstab")
_ACTIVE = re.compile(r"^[ \t]*[^#\s]\S*[ \t]+\S+[ \t]+swap[ \t]", re.MULTILINE)
_OFF_FOR_GOOD = r"sed -i -E '/^\s*[^#\s]\S*\s+\S+\s+swap\s/s/^/#/' "


def swap() -> Finding:
    """Whether what is swapped out stays secret."""
    names = [line.split()[0] for line in SWAPS.read_text().splitlines()[1:] if line.split()]
    places = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), name) for name in names]
    plain = [place for place in places if not _is_secret(Path(place))]
    if not names:
        return Finding("swap", "ok", "off")
    if not plain:
        return Finding("swap", "ok", "encrypted or in memory")
    fix = [f"{sudo()}swapoff {' '.join(map(_quoted, plain))}"]
    if FSTAB.exists() and _ACTIVE.search(FSTAB.read_text()):
        fix.append(f"{sudo()}{_OFF_FOR_GOOD}{FSTAB}")
    text = f"not encrypted: {', '.join(plain)}; memory of qubes may come to lie on disk"
    return Finding("swap", "lack", text, tuple(fix))


def _is_secret(place: Path) -> bool:
    """Whether a swap device, or the device below a swap file, is encrypted or in memory."""
    try:
        found = place.stat()
    except OSError:
        return False
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    return _is_secret_device(BLOCKS / f"{os.major(number)}:{os.minor(number)}")


def _is_secret_device(device: Path) -> bool:
    """Of a block device; one that is made of others, as logical volumes are, as they are."""
    if device.resolve().name.startswith("zram"):
        return True
    identity = device / "dm" / "uuid"
    if identity.exists() and identity.read_text().startswith("CRYPT-"):
        return True
    below = list((device / "slaves").glob("*"))
    return bool(below) and all(map(_is_secret_device, below))


def _quoted(place: str) -> str:
    return "'" + place.replace("'", r"'\''") + "'" if re.search(r"[^\w/.:+-]", place) else place
