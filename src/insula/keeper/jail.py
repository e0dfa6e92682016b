"""What a jail is made of: bubblewrap's argv for each kind."""

from pathlib import Path

from insula.protocol.keeper import JailKind, JailSpec

BWRAP = "/usr/bin/bwrap"
_QEMU = ("/usr/bin/qemu-system-x86_64", "/usr/share/qemu", "/usr/share/seabios")
_LIBRARIES = ("/usr/lib", "/usr/lib64")
_DEVICES = ("null", "zero", "random", "urandom")


def bwrap_argv(spec: JailSpec, info: int) -> list[str]:
    """The whole argv; info: descriptor on which bwrap tells the pid of its inner process.

    No --die-with-parent: what runs in a jail outlives the daemon and the keeper.
    """
    words = [
        BWRAP,
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
        *("--unshare-cgroup-try", "--new-session", "--as-pid-1", "--cap-drop", "ALL"),
        *("--info-fd", str(info)),
    ]
    bound = (*_QEMU, *_LIBRARIES) if spec.kind is JailKind.MACHINE else _LIBRARIES
    for path in bound:
        if Path(path).exists():
            words += ["--ro-bind", path, path]
    for name in ("lib", "lib64"):
        if Path("/usr", name).exists():
            words += ["--symlink", f"usr/{name}", f"/{name}"]
    for path, place in spec.read_only:
        words += ["--ro-bind", path, place]
    words += ["--proc", "/proc"]
    for device in _DEVICES:
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    if spec.kvm:
        words += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
    words += ["--remount-ro", "/", "--clearenv"]
    for name, value in spec.environment.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", "/", "--", *spec.program]
