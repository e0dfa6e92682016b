"""What a jail is made of: bubblewrap's argv for each kind."""

from pathlib import Path

from insula.keeper.tun import tun_for
from insula.protocol.keeper import JailKind, JailSpec

BWRAP = "/usr/bin/bwrap"
_QEMU = ("/usr/bin/qemu-system-x86_64", "/usr/share/qemu", "/usr/share/seabios")
_PASST = tuple(f"/usr/bin/{name}{kind}" for name in ("passt", "pasta") for kind in ("", ".avx2"))
_PASST_ROOT = "/tmp"  # where it makes the empty root that it then enters
_TUN = "/dev/net/tun"
_MULTIARCH = Path("/usr/lib/x86_64-linux-gnu")
_DEVICES = ("null", "zero", "random", "urandom")
_SHOWN = frozenset(("cpuinfo",))  # of what /proc tells of the host, by which to watch others


def bwrap_argv(spec: JailSpec, info: int, seccomp: int) -> list[str]:
    """The whole argv.

    info: descriptor on which bwrap tells the pid of its inner process. seccomp: descriptor of the
    system call filter, where the kind has one. No --die-with-parent: what runs in a jail outlives
    daemon and keeper.
    """
    words = [
        BWRAP,
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"),
        *("--unshare-cgroup-try", "--new-session", "--as-pid-1"),
        *("--cap-drop", "ALL", "--hostname", "jail", "--info-fd", str(info)),
    ]
    if is_filtered(spec.kind):
        words += ["--unshare-net", "--disable-userns", "--seccomp", str(seccomp)]
    else:
        words += ["--dir", _PASST_ROOT, "--dev-bind", tun_for(spec.uid), _TUN]
    for path in bound(spec.kind):
        words += ["--ro-bind", path, path]
    for name in ("lib", "lib64"):
        if Path("/usr", name).exists():
            words += ["--symlink", f"usr/{name}", f"/{name}"]
    for path, place in spec.read_only:
        words += ["--ro-bind", path, place]
    # passt and pasta write their users' numbers there, before they leave it all behind.
    words += _proc() if is_filtered(spec.kind) else ["--proc", "/proc"]
    for device in _DEVICES:
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    if spec.kvm:
        words += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
    words += ["--remount-ro", "/", "--clearenv"]
    for name, value in spec.environment.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", "/", "--", *spec.program]


def is_filtered(kind: JailKind) -> bool:
    """Whether a kind gets the keeper's filter.

    passt and pasta make themselves narrower jails inside, with far stricter filters of their own.
    """
    return kind is not JailKind.UPLINK


def bound(kind: JailKind) -> list[str]:
    """Paths of the host that every jail of a kind shows, all read-only."""
    # Debian's own libraries lie together; elsewhere they cannot be told from the rest.
    shared = str(_MULTIARCH) if _MULTIARCH.is_dir() else "/usr/lib"
    paths = [shared, "/usr/lib64"]
    if kind is JailKind.MACHINE:
        paths += _QEMU
    if kind is JailKind.UPLINK:
        paths += _PASST
    return [path for path in paths if Path(path).exists()]


def _proc() -> list[str]:
    """A read-only /proc of the jail's own processes and nothing else."""
    words = ["--proc", "/proc"]
    for entry in sorted(Path("/proc").iterdir()):
        if entry.name.isdigit() or entry.name in _SHOWN or entry.is_symlink():
            continue
        if entry.is_dir():
            words += ["--tmpfs", str(entry), "--remount-ro", str(entry)]
        else:
            words += ["--ro-bind", "/dev/null", str(entry)]
    return [*words, "--remount-ro", "/proc"]
