"""Shutting a process into one directory, by the kernel's C interface: Python has no other."""

import ctypes
import errno
import os

_NEW_NAMESPACE, _NEW_USER = 0x0002_0000, 0x1000_0000
_BIND, _REMOUNT = 4096, 32
_NO_SETUID, _NO_DEVICES, _NO_EXEC = 2, 4, 8
_PRIVATE, _RECURSIVE = 1 << 18, 16384
_CAPABILITY_VERSION = 0x2008_0522
_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def confine(directory: int) -> None:
    """Make a directory the root of what this process sees: no devices, no programs to start.

    Without privileges it takes a user namespace of its own, with the same user in it.

    Raises:
        OSError: the kernel does not let it.
    """
    user, group = os.geteuid(), os.getegid()
    if user:
        _check(_libc.unshare(_NEW_USER | _NEW_NAMESPACE))
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    else:
        _check(_libc.unshare(_NEW_NAMESPACE))
    _mount(b"none", b"/", _PRIVATE | _RECURSIVE)
    # By its path, twice: a descriptor is of the mounts from before, and what is entered first lies
    # below the new mount.
    path = os.readlink(b"/proc/self/fd/%d" % directory)  # noqa: PTH115 - any bytes are a name
    os.chdir(path)
    _mount(b".", b".", _BIND)
    os.chdir(path)
    if not os.path.samestat(os.stat(b"."), os.fstat(directory)):  # noqa: PTH116
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    _mount(b".", b".", _BIND | _REMOUNT | _NO_SETUID | _NO_DEVICES | _NO_EXEC)
    os.chroot(".")
    os.chdir("/")


def own_process() -> None:
    """After a change of user, let the process write its own files below /proc again.

    Raises:
        OSError: the kernel does not let it.
    """
    _check(_libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0))


def drop_privileges() -> None:
    """Give up what being root in a namespace of one's own allows: a mode that forbids, forbids.

    Raises:
        OSError: the kernel does not let it.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()))


def sync_file_system(descriptor: int) -> None:
    """Write all of a file system to its disk.

    Raises:
        OSError: it could not be.
    """
    _check(_libc.syncfs(descriptor))


def _mount(source: bytes, target: bytes, flags: int) -> None:
    _check(_libc.mount(source, target, b"none", ctypes.c_ulong(flags), None))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - the path is the kernel's
        file.write(text)


def _check(outcome: int) -> None:
    if outcome:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
