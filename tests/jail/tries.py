"""Every try of the probe, and where a run without the jail's walls shows that it is a real one.

OUTSIDE: reached by the same unprivileged user outside. WALLS: by the jail with its filter, its
read-only mounts and its dropped capabilities left out. HOST: by the user who runs the tests, who is
root in CI; of files only where the host has them and that user may open them. ROOT: by root alone.
UNSHOWN: by nobody here, as it would harm the host, or as not every host can do it at all.
"""

import enum
import os
from pathlib import Path


class Shown(enum.Enum):
    """What shows that a try works where there is no jail."""

    OUTSIDE = enum.auto()
    WALLS = enum.auto()
    HOST = enum.auto()
    ROOT = enum.auto()
    UNSHOWN = enum.auto()


PATHS = (
    "the other's disk",
    "the own disk by its path",
    "the other's memory",
    "the other's files",
    "a key in the home directory",
    "the store",
)
SOCKETS = (
    "the other's QMP",
    "the other's control port",
    "the keeper",
    "the daemon",
    "an abstract socket",
    "the X server",
)
READ = (
    *("/etc/passwd", "/etc", "/root", "/home", "/tmp", "/var", "/run", "/sys", "/boot", "/opt"),
    *("/proc/1/root/etc/passwd", "/../../etc/passwd", "/usr/bin/sh", "/usr/bin/python3"),
    *("/usr/share/doc", "/dev/mem", "/dev/kmsg", "/dev/shm", "/dev/pts", "/dev/vda", "/dev/fuse"),
    *("/dev/net/tun", "/dev/vhost-net", "/proc/kcore", "/proc/kallsyms", "/proc/interrupts"),
    *("/proc/stat", "/proc/keys", "/proc/meminfo", "/proc/loadavg", "/proc/sys/kernel/hostname"),
)
WRITTEN = (
    *("/usr/bin/qemu-system-x86_64", "/usr/share/qemu/linuxboot_dma.bin"),
    *("/usr/lib/x86_64-linux-gnu/libc.so.6", "/proc/self/exe", "/proc/sysrq-trigger"),
    *("/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward"),
    "/proc/sys/kernel/hostname",
)
_OUTSIDE = (
    "inherit a descriptor",
    *("socket inet", "socket inet6", "socket netlink", "socket udp"),
    "connect to the host's loopback",
    *("read another process's environment", "open another process's memory"),
    *("see other processes", "signal another process", "signal all others"),
    *("ptrace another process", "read another process", "write another process"),
    *("handle of another process", "compare with another process"),
    "priority of another process",
    *("fork", "vfork", "clone", "clone into a user namespace", "clone3", "execve", "execveat"),
    "a crowd of threads",
    *("personality", "keyctl", "add_key", "request_key"),
    "change its rank when memory runs out",
    *("unshare user", "userfaultfd", "io_uring_setup", "modify_ldt", "type into a terminal"),
    *("shared memory of System V", "message queue of System V", "watch files"),
    "have all disks flushed",
    "raise the limit of core files",
    *("write the shared memory", "map the shared memory to write", "shrink the shared memory"),
    *("grow the shared memory", "punch the shared memory", "allocate beyond the shared memory"),
    *("change the seals of the shared memory", "write the shared memory, opened again"),
    *("write what it may read", "map what it may read to write", "truncate what it may read"),
    *("write what it may read, opened again", "change the mode of what it may read"),
    *("change the owner of what it may read", "change who may write what it may read"),
    *("hold a lease on what it may read", "write what it may read, after all"),
)
_WALLS = (
    *("create /new", "create /usr/new", "create /dev/new"),
    *("socket packet", "socket raw", "setuid", "setgid", "setresuid", "capset"),
    *("ambient capability", "unshare mounts", "unshare network", "setns", "mount", "umount"),
    *("remount writable", "pivot_root", "chroot", "fsopen", "open_tree", "reboot", "sethostname"),
)
_ROOT = (
    *("setgroups", "open by handle", "bpf", "perf_event_open", "read the kernel's log"),
    *("fanotify_init", "raise priority", "real time", "real time by attributes"),
    "real time disk access",
)
_UNSHOWN = (
    *("make a device", "create /usr/lib/x86_64-linux-gnu/new", "create /proc/new"),
    *("open /dev/kvm", "socket vsock", "socket alg", "message queue of POSIX"),
    *("kexec_load", "init_module", "finit_module", "ioperm", "iopl", "set the clock", "swapon"),
    *("acct", "memfd_secret", "a call of the x32 kind", "raise the limit of open files"),
)
TRIES: dict[str, Shown] = {
    **dict.fromkeys((*PATHS, *SOCKETS, *_OUTSIDE), Shown.OUTSIDE),
    **dict.fromkeys((f"read {path}" for path in READ), Shown.HOST),
    **dict.fromkeys((f"write {path}" for path in WRITTEN), Shown.HOST),
    **dict.fromkeys(_WALLS, Shown.WALLS),
    **dict.fromkeys(_ROOT, Shown.ROOT),
    **dict.fromkeys(_UNSHOWN, Shown.UNSHOWN),
}


def shown(where: Shown) -> list[str]:
    """The tries that a run of that kind has to reach on this host."""
    names = [name for name, one in TRIES.items() if one is where]
    return [name for name in names if where is not Shown.HOST or _openable(name)]


def _openable(name: str) -> bool:
    action, path = name.split(" ", 1)
    if action == "write":
        return os.access(path, os.W_OK)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return Path(path).exists()
