"""The keeper's own system call filter: in force before the jailed program's first instruction.

It is the wall below QEMU's own filter, which lets io_uring, keyrings and every address family
through. A classic BPF program as seccomp(2) and linux/filter.h define it, for x86_64: arguments
are looked at where a call is harmless with some and harmful with others.
"""

import errno
import platform
import struct

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_INSTRUCTION = struct.Struct("<HBBI")  # code, jump if true, jump if false, constant

# Places in struct seccomp_data; arguments are 64 bits each, low half first.
_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = 16

ALLOW = 0x7FFF0000
KILL = 0x80000000  # the whole process
_ERROR = 0x00050000
REFUSED = _ERROR | errno.EPERM
ABSENT = _ERROR | errno.ENOSYS

X86_64 = 0xC000003E
X32_BIT = 0x40000000  # numbers of the x32 calls, which are another way to the same kernel
FIRST_UNKNOWN = 451  # calls newer than those judged here, from cachestat on
AF_UNIX = 1
AF_NETLINK = 16
CLONE_THREAD = 0x00010000
TERMINAL_INJECTIONS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

HOLD_UPS = (1024, 1026)  # F_SETLEASE, F_NOTIFY
FILE_FLAGS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
DESCRIPTOR_FLAGS = (0x5421, 0x5450, 0x5451)  # FIONBIO, FIONCLEX, FIOCLEX
PROT_EXEC, AT_EMPTY_PATH = 0x4, 0x1000

SOCKET, SOCKETPAIR, IOCTL, CLONE, FCNTL = 41, 53, 16, 56, 72

_OTHER_PROCESSES = {
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "pidfd_send_signal": 424,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "process_mrelease": 448,
    "fork": 57,
    "vfork": 58,
    "execveat": 322,
}
_IDENTITY = {
    "setuid": 105,
    "setgid": 106,
    "setreuid": 113,
    "setregid": 114,
    "setgroups": 116,
    "setresuid": 117,
    "setresgid": 119,
    "setfsuid": 122,
    "setfsgid": 123,
    "capset": 126,
    "personality": 135,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
}
_NAMESPACES_AND_MOUNTS = {
    "pivot_root": 155,
    "chroot": 161,
    "mount": 165,
    "umount2": 166,
    "unshare": 272,
    "setns": 308,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "mknod": 133,
    "mknodat": 259,
}
# Modes of files stay as they are: by them the owner of a file that is open to read is kept from
# opening it to write. No watch, lease or flush tells of others' files or holds them up.
_FILES = {
    "chmod": 90,
    "fchmod": 91,
    "chown": 92,
    "fchown": 93,
    "lchown": 94,
    "fchownat": 260,
    "fchmodat": 268,
    "setxattr": 188,
    "lsetxattr": 189,
    "fsetxattr": 190,
    "removexattr": 197,
    "lremovexattr": 198,
    "fremovexattr": 199,
    "inotify_init": 253,
    "inotify_add_watch": 254,
    "inotify_init1": 294,
    "sync": 162,
    "syncfs": 306,
}
_KERNEL = {
    "syslog": 103,
    "uselib": 134,
    "ustat": 136,
    "sysfs": 139,
    "vhangup": 153,
    "modify_ldt": 154,
    "_sysctl": 156,
    "adjtimex": 159,
    "acct": 163,
    "settimeofday": 164,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "sethostname": 170,
    "setdomainname": 171,
    "iopl": 172,
    "ioperm": 173,
    "create_module": 174,
    "init_module": 175,
    "delete_module": 176,
    "get_kernel_syms": 177,
    "query_module": 178,
    "quotactl": 179,
    "nfsservctl": 180,
    "lookup_dcookie": 212,
    "remap_file_pages": 216,
    "clock_settime": 227,
    "kexec_load": 246,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "fanotify_mark": 301,
    "clock_adjtime": 305,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "quotactl_fd": 443,
    "memfd_secret": 447,
    "vmsplice": 278,
}
_SCHEDULING = {
    "setpriority": 141,
    "sched_setparam": 142,
    "sched_setscheduler": 144,
    "ioprio_set": 251,
    "sched_setattr": 314,
    "migrate_pages": 256,
    "move_pages": 279,
    "set_mempolicy": 238,
}
_SYSTEM_V = {
    "shmget": 29,
    "shmat": 30,
    "shmctl": 31,
    "semget": 64,
    "semop": 65,
    "semctl": 66,
    "msgget": 68,
    "msgsnd": 69,
    "msgrcv": 70,
    "msgctl": 71,
    "semtimedop": 220,
    "mq_open": 240,
    "mq_unlink": 241,
}
DENIED: dict[str, int] = {
    **_OTHER_PROCESSES,
    **_IDENTITY,
    **_NAMESPACES_AND_MOUNTS,
    **_FILES,
    **_KERNEL,
    **_SCHEDULING,
    **_SYSTEM_V,
}
# The C library uses clone where there is no clone3, whose flags a filter cannot see; QEMU takes
# this one answer of mbind for a host without NUMA.
MISSING: dict[str, int] = {"clone3": 435, "mbind": 237}


_MODES = frozenset(("chmod", "fchmod", "fchmodat"))


def jail_filter() -> bytes:
    """The program for bwrap's --seccomp.

    Raises:
        NotImplementedError: the host's processor is no x86_64.
    """
    return _jail_filter(DENIED)


def _jail_filter(denied: dict[str, int]) -> bytes:
    _require_x86_64()
    code = [*_from_x86_64(KILL), *_when(_JUMP_AT_LEAST, FIRST_UNKNOWN, ABSENT)]
    for number in denied.values():
        code += _when(_JUMP_EQUAL, number, REFUSED)
    for number in MISSING.values():
        code += _when(_JUMP_EQUAL, number, ABSENT)
    code += _for_call(SOCKET, 0, _unless(_JUMP_EQUAL, AF_UNIX, REFUSED))
    code += _for_call(SOCKETPAIR, 0, _unless(_JUMP_EQUAL, AF_UNIX, REFUSED))
    code += _for_call(CLONE, 0, _unless(_JUMP_ANY_BIT, CLONE_THREAD, REFUSED))
    code += _for_call(IOCTL, 1, _none_of(TERMINAL_INJECTIONS))
    code += _for_call(FCNTL, 1, _none_of(HOLD_UPS))
    return b"".join([*code, _one(_RETURN, ALLOW)])


# What is left to a process that has all it needs: its own memory, and descriptors that are open.
SETTLED: dict[str, int] = {
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "poll": 7,
    "lseek": 8,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "readv": 19,
    "writev": 20,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "dup": 32,
    "nanosleep": 35,
    "getpid": 39,
    "shutdown": 48,
    "getsockopt": 55,
    "exit": 60,
    "wait4": 61,
    "gettimeofday": 96,
    "sigaltstack": 131,
    "gettid": 186,
    "time": 201,
    "futex": 202,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "epoll_wait": 232,
    "epoll_ctl": 233,
    "waitid": 247,
    "epoll_pwait": 281,
    "getrandom": 318,
}
MMAP, MPROTECT, NEWFSTATAT = 9, 10, 262


def settled_filter() -> bytes:
    """A program under which nothing is opened, started, reached or made executable any more.

    Raises:
        NotImplementedError: the host's processor is no x86_64.
    """
    _require_x86_64()
    executable = _when(_JUMP_ANY_BIT, PROT_EXEC, REFUSED)
    code = _from_x86_64(KILL)
    for number in SETTLED.values():
        code += _when(_JUMP_EQUAL, number, ALLOW)
    code += _for_call(MMAP, 2, executable)
    code += _for_call(MPROTECT, 2, executable)
    code += _for_call(FCNTL, 1, _only(FILE_FLAGS))
    code += _for_call(IOCTL, 1, _only(DESCRIPTOR_FLAGS))
    code += _for_call(NEWFSTATAT, 3, _unless(_JUMP_ANY_BIT, AT_EMPTY_PATH, REFUSED))
    return b"".join([*code, _one(_RETURN, REFUSED)])


def service_filter() -> bytes:
    """A program for services of ours: as in a jail, but that files of theirs may have modes.

    Raises:
        NotImplementedError: the host's processor is no x86_64.
    """
    return _jail_filter({name: number for name, number in DENIED.items() if name not in _MODES})


def network_filter() -> bytes:
    """A program under which no socket is made but of the host's own programs, files and kernel.

    Raises:
        NotImplementedError: the host's processor is no x86_64.
    """
    _require_x86_64()
    ours = [
        *_when(_JUMP_EQUAL, AF_UNIX, ALLOW),
        *_unless(_JUMP_EQUAL, AF_NETLINK, REFUSED),
    ]
    code = [
        *_from_x86_64(ABSENT),
        *_when(_JUMP_EQUAL, _KERNEL["io_uring_setup"], ABSENT),
        *_for_call(SOCKET, 0, ours),
    ]
    return b"".join([*code, _one(_RETURN, ALLOW)])


def _require_x86_64() -> None:
    if platform.machine() != "x86_64":
        raise NotImplementedError(f"no system call filter for {platform.machine()}")


def _from_x86_64(otherwise: int) -> list[bytes]:
    """Load the number of a call, which is one of x86_64 and nothing else."""
    return [
        _one(_LOAD, _ARCHITECTURE),
        *_unless(_JUMP_EQUAL, X86_64, otherwise),
        _one(_LOAD, _NUMBER),
        *_when(_JUMP_AT_LEAST, X32_BIT, REFUSED),
    ]


def _one(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, constant)


def _when(test: int, constant: int, action: int) -> list[bytes]:
    """End with action if the loaded word passes the test."""
    return [_one(test, constant, 0, 1), _one(_RETURN, action)]


def _unless(test: int, constant: int, action: int) -> list[bytes]:
    """End with action if the loaded word fails the test."""
    return [_one(test, constant, 1, 0), _one(_RETURN, action)]


def _none_of(constants: tuple[int, ...]) -> list[bytes]:
    return [one for constant in constants for one in _when(_JUMP_EQUAL, constant, REFUSED)]


def _only(constants: tuple[int, ...]) -> list[bytes]:
    allowed = [one for constant in constants for one in _when(_JUMP_EQUAL, constant, ALLOW)]
    return [*allowed, _one(_RETURN, REFUSED)]


def _for_call(number: int, argument: int, checks: list[bytes]) -> list[bytes]:
    """For one call: look at the low half of an argument; what no check ends is allowed."""
    body = [_one(_LOAD, _ARGUMENTS + 8 * argument), *checks, _one(_RETURN, ALLOW)]
    return [_one(_JUMP_EQUAL, number, 0, len(body)), *body]
