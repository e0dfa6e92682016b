"""The root volume: its file system takes the room that its disk was given (in-qube.md 2.4)."""

import subprocess

from insula.guest.private import file_system_size

DEVICE = "/dev/vda"
_SECTORS = "/sys/class/block/vda/size"
_READ_ONLY = "/sys/class/block/vda/ro"
_LEFT_OVER = (203 + 5) << 20  # bytes that a disk may be larger
_TIMEOUT = 300
_HEAD = 4096  # bytes of the device with all that is looked at


def grow(report: list[str]) -> None:
    """Grow the file system if its disk is larger; what goes wrong keeps no qube from running."""
    try:
        if _number(_READ_ONLY) or _number(_SECTORS) * 512 <= _used() + _LEFT_OVER:
            return
        done = subprocess.run(
            ["/sbin/resize2fs", DEVICE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        report.append(f"the root file system did not grow: {error}")
        return
    if done.returncode:
        report.append(f"the root file system did not grow: {done.stderr[-200:]!r}")


def _used() -> int:
    with open(DEVICE, "rb", buffering=0) as device:  # noqa: PTH123 - pathlib is slow here
        return file_system_size(device.read(_HEAD))


def _number(path: str) -> int:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return int(file.read(32))
