"""Block devices of the host that a qube could have, read from sysfs (devices.md section 4)."""

import re
from pathlib import Path

from insula.protocol.devices import DeviceInfo

_HOST = "dom0"
_NAME = re.compile(r"[a-z0-9-]{1,12}", re.ASCII)
_NEVER = ("zram", "ram", "sr", "fd")  # no disks, or drives, which may be empty
_SECTOR = 512  # bytes, in which sysfs counts whatever the disk's own are
_NOT_IN_TEXT = re.compile(r"[^0-9A-Za-z()+,\-.:_/]", re.ASCII)
_LAST_DIGITS = re.compile(r"[0-9]+$", re.ASCII)


def host_disks(sys: Path, proc: Path) -> list[DeviceInfo]:
    """Disks, partitions and loop devices that nothing on the host uses.

    What device mapper made is left out: who uses it is not always to be seen.
    """
    block = sys / "class" / "block"
    try:
        names = sorted(entry.name for entry in block.iterdir())
        used = _used(proc)
    except OSError:
        return []
    found = (_device(block / name, used) for name in names if _NAME.fullmatch(name))
    return [device for device in found if device is not None]


def _device(entry: Path, used: frozenset[str]) -> DeviceInfo | None:
    name, place = entry.name, entry.resolve()
    partition = (place / "partition").exists()
    size = _number(place / "size") * _SECTOR
    if name.startswith((*_NEVER, "dm-")) or size == 0 or _is_used(place, used):
        return None
    disk = place.parent if partition else place
    model = _NOT_IN_TEXT.sub("_", _read(disk / "device" / "model"))
    backing = _NOT_IN_TEXT.sub("_", _read(place / "loop" / "backing_file"))
    digits = _LAST_DIGITS.search(name)
    part = digits[0] if digits else "None"
    above = _whole(disk.name) if partition else ""
    described = {"serial": model or backing}
    return DeviceInfo(
        devclass="block",
        backend=_HOST,
        port=name,
        device_id=f"{above}:{part}",
        interfaces="b******",
        described={key: value for key, value in described.items() if value},
        parent=("block", disk.name) if partition else None,
        data={"mode": "r" if _number(place / "ro") else "w", "size": str(size)},
    )


def _whole(disk: str) -> str:
    """The id of a disk, which is a part of nothing."""
    digits = _LAST_DIGITS.search(disk)
    return f":{digits[0] if digits else 'None'}"


def _is_used(place: Path, used: frozenset[str]) -> bool:
    """Whether something on the host has a device, a part of it, or the whole it is a part of."""
    if (place / "partition").exists() and _held(place.parent, used):
        return True
    parts = (entry.parent for entry in place.glob("*/partition"))
    return _held(place, used) or any(_held(part, used) for part in parts)


def _held(place: Path, used: frozenset[str]) -> bool:
    if place.name in used or _read(place / "dev") in used:
        return True
    holders = place / "holders"
    return holders.is_dir() and any(holders.iterdir())


def _used(proc: Path) -> frozenset[str]:
    """Names and numbers of devices that are mounted or swapped to."""
    mounts = (proc / "self" / "mountinfo").read_text(errors="replace").splitlines()
    found = {fields[2] for line in mounts if len(fields := line.split(" ")) > 2}
    for line in mounts:
        fields = line.partition(" - ")[2].split(" ")
        if len(fields) > 1 and fields[1].startswith("/dev/"):
            found.add(Path(fields[1]).name)  # A file system with numbers of its own, as btrfs.
    swaps = proc / "swaps"
    if swaps.exists():
        found.update(Path(line.split()[0]).name for line in swaps.read_text().splitlines()[1:])
    return frozenset(found)


def _number(path: Path) -> int:
    text = _read(path)
    return int(text) if text.isascii() and text.isdecimal() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
