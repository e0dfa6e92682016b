"""Files a program may only read, kept from being opened again to write.

/proc/self/fd lets the owner of a file make a descriptor that reads into one that writes. A program
that runs as a user of its own owns none of them; where keeper and program are one user, each file
is opened anew through a mount of its own that is read-only, and stays so for whoever has it open.
"""

import ctypes
import fcntl
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_PR_SET_DUMPABLE = 4
_OPEN_TREE = 428  # numbers of system calls, the same on every architecture
_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_ATTRIBUTES = struct.pack("=QQQQ", 1, 0, 0, 0)  # struct mount_attr: set MOUNT_ATTR_RDONLY

_libc = ctypes.CDLL(None, use_errno=True)


class NotReadOnlyError(Exception):
    """A file cannot be given to be read alone."""


def enter_namespaces() -> None:
    """Become one who may make mounts, as the same user; for a child that will be another program.

    Raises:
        OSError: the host forbids it.
    """
    uid, gid = os.geteuid(), os.getegid()
    # As of its keeper, nobody might write the maps of a process that is not dumpable.
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        raise _error("user namespaces cannot be made")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def keep_from_writing(descriptors: Sequence[int]) -> None:
    """Replace each descriptor of a file that is open to read alone by one that stays so.

    For a child that has namespaces of its own by `enter_namespaces`.

    Raises:
        OSError: the host forbids it. NotReadOnlyError: a file has no name any more.
    """
    for descriptor in filter(_could_be_written, descriptors):
        anew = _opened_anew(descriptor)
        os.lseek(anew, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
        os.dup2(anew, descriptor)
        os.close(anew)


def _could_be_written(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        return False
    if not stat.S_ISREG(found.st_mode) or not _path(descriptor).is_absolute():
        return False  # What has no path is the kernel's, as namespaces are.
    return not os.fstatvfs(descriptor).f_flag & os.ST_RDONLY


def _path(descriptor: int) -> Path:
    return Path("/proc/self/fd", str(descriptor)).readlink()


def _opened_anew(descriptor: int) -> int:
    path = _path(descriptor)
    tree = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if tree < 0:
        raise _error(f"{path} cannot be mounted read-only")
    try:
        size = len(_ATTRIBUTES)
        if _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, _ATTRIBUTES, size):
            raise _error(f"{path} cannot be mounted read-only")
        anew = os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(tree)
    if not os.path.samestat(os.fstat(anew), os.fstat(descriptor)):
        raise NotReadOnlyError(f"{path} is another file by now")
    return anew


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
