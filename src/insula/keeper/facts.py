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
        uid=int(status["Uid"].split()[1]),
        no_new_privs=status["NoNewPrivs"].strip() == "1",
        seccomp=int(status["Seccomp"]),
        capabilities=capabilities,
        namespaces=tuple(
            name
            for name in NAMESPACES
            if (place / "ns" / name).stat().st_ino != Path("/proc/self/ns", name).stat().st_ino
        ),
        descriptors=tuple(sorted(_descriptors(place / "fd"))),
        root_entries=tuple(sorted(entry.name for entry in (place / "root").iterdir())),
    )


def _descriptors(folder: Path) -> list[tuple[int, str]]:
    found = []
    for entry in folder.iterdir():
        try:
            found.append((int(entry.name), str(entry.readlink())))
        except FileNotFoundError:
            continue
    return found
