"""What holds of a process in its jail, read from /proc."""

from pathlib import Path

from insula.protocol.keeper import Facts

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


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
    return Facts(
        uids=_numbers(status["Uid"]),
        gids=tuple(dict.fromkeys(_numbers(status["Gid"]) + _numbers(status["Groups"]))),
        no_new_privs=status["NoNewPrivs"].strip() == "1",
        seccomp=int(status["Seccomp"]),
        seccomp_filters=int(status["Seccomp_filters"]),
        capabilities=capabilities,
        namespaces=tuple(
            name
            for name in NAMESPACES
            if (place / "ns" / name).stat().st_ino != Path("/proc/self/ns", name).stat().st_ino
        ),
        descriptors=tuple(sorted(_descriptors(place / "fd"))),
        root_entries=tuple(sorted(entry.name for entry in (place / "root").iterdir())),
        mounts=tuple(_mounts((place / "mountinfo").read_text())),
    )


def what_is(descriptor: Path) -> str:
    """What an entry of /proc/PID/fd is: its name there, then device and inode as its identity.

    Two memory files may have one name, and a file another name in another mount namespace: only
    the last word tells two apart.
    """
    found = descriptor.stat()
    return f"{descriptor.readlink()} {found.st_dev:x}:{found.st_ino}"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def _descriptors(folder: Path) -> list[tuple[int, str]]:
    found = []
    for entry in folder.iterdir():
        try:
            found.append((int(entry.name), what_is(entry)))
        except FileNotFoundError:
            continue
    return found


def _mounts(mountinfo: str) -> list[tuple[str, bool]]:
    """Place and whether it is writable, of lines as proc(5) has them."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        found.append((fields[4], "rw" in fields[5].split(",")))
    return found
