"""What holds of a process in its jail, read from /proc."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from insula.protocol.keeper import Facts, HeldDescriptor

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_LONGEST_LINE = 4  # processes
_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


@dataclass(frozen=True, slots=True)
class _Mount:
    number: int
    place: str
    writable: bool


def read_facts(pid: int) -> Facts:
    """Look at a process.

    Raises:
        OSError: it is gone.
    """
    place = Path("/proc", str(pid))
    status = dict(
        line.split(":\t", 1)
        for line in (place / "status").read_text().splitlines()
        if ":\t" in line
    )
    capabilities = 0
    for name in _SETS:
        capabilities |= int(status[name], 16)
    uids = _numbers(status["Uid"])
    gids = tuple(dict.fromkeys(_numbers(status["Gid"]) + _numbers(status["Groups"])))
    mounts = [_mount(line) for line in (place / "mountinfo").read_text().splitlines()]
    inside = frozenset(mount.number for mount in mounts)
    return Facts(
        uids=uids,
        gids=gids,
        no_new_privs=status["NoNewPrivs"].strip() == "1",
        seccomp=int(status["Seccomp"]),
        seccomp_filters=int(status["Seccomp_filters"]),
        capabilities=capabilities,
        bounding=int(status["CapBnd"], 16),
        namespaces=tuple(
            name
            for name in NAMESPACES
            if (place / "ns" / name).stat().st_ino != Path("/proc/self/ns", name).stat().st_ino
        ),
        descriptors=tuple(_descriptors(place, inside, uids, gids)),
        root_entries=tuple(sorted(entry.name for entry in (place / "root").iterdir())),
        mounts=tuple((mount.place, mount.writable) for mount in mounts),
    )


def last_of(pid: int) -> int:
    """The process at the end of a line of children that begins with one.

    Raises:
        OSError: it is gone.
    """
    for _ in range(_LONGEST_LINE):
        children = Path("/proc", str(pid), "task", str(pid), "children").read_text().split()
        if not children:
            break
        pid = int(children[0])
    return pid


def what_is(descriptor: Path) -> str:
    """What an entry of /proc/PID/fd is: its name there, then device and inode as its identity.

    Two memory files may have one name, and a file another name in another mount namespace: only
    the last word tells two apart.
    """
    found = descriptor.stat()
    return f"{descriptor.readlink()} {found.st_dev:x}:{found.st_ino}"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def _mount(line: str) -> _Mount:
    """Of a line as proc(5) has them."""
    fields = line.split(" ")
    return _Mount(int(fields[0]), fields[4], "rw" in fields[5].split(","))


def _descriptors(
    place: Path, inside: frozenset[int], uids: tuple[int, ...], gids: tuple[int, ...]
) -> list[HeldDescriptor]:
    found = []
    for number in sorted(int(entry.name) for entry in (place / "fd").iterdir()):
        entry = place / "fd" / str(number)
        try:
            details = dict(
                line.split(":\t", 1)
                for line in (place / "fdinfo" / str(number)).read_text().splitlines()
                if ":\t" in line
            )
            held = HeldDescriptor(
                number=number,
                what=what_is(entry),
                inside=int(details["mnt_id"]) in inside,
                reopens=_reopens(entry, int(details["flags"], 8), uids, gids),
            )
        except FileNotFoundError:  # It was closed meanwhile.
            continue
        found.append(held)
    return found


def _reopens(entry: Path, flags: int, uids: tuple[int, ...], gids: tuple[int, ...]) -> bool:
    """Whether a file that is open to read could be opened to write by /proc/self/fd.

    Judged by the file's mode: the jail's filter keeps its owner from changing that.
    """
    found = entry.stat()
    if flags & os.O_ACCMODE != os.O_RDONLY or not stat.S_ISREG(found.st_mode):
        return False
    if os.statvfs(entry).f_flag & os.ST_RDONLY:
        return False
    if found.st_uid in uids:
        return bool(found.st_mode & stat.S_IWUSR)
    return bool(found.st_mode & (stat.S_IWGRP if found.st_gid in gids else stat.S_IWOTH))
