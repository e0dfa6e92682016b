"""mount(2), without a program in between."""

import ctypes
import os

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOATIME = 1024
MS_BIND = 4096
MS_REMOUNT = 32

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount source on target.

    Raises:
        OSError: the kernel refused.
    """
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None
    )
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {source} on {target}: {os.strerror(number)}")


def bind(source: str, target: str, flags: int = 0) -> None:
    """Show source at target too, with further flags."""
    mount(source, target, flags=MS_BIND)
    if flags:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | flags)


def unmount(target: str) -> None:
    """Unmount what is mounted on target.

    Raises:
        OSError: the kernel refused.
    """
    if _libc.umount2(target.encode(), 0):
        number = ctypes.get_errno()
        raise OSError(number, f"unmounting {target}: {os.strerror(number)}")
