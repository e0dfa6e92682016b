"""The jail's system call filter, run by an interpreter of classic BPF."""

import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.keeper import seccomp
from insula.keeper.seccomp import ABSENT, ALLOW, DENIED, KILL, MISSING, REFUSED, X86_64, jail_filter

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
I386, AARCH64 = 0x40000003, 0xC00000B7
THREAD = 0x3D0F00  # the flags of clone by which the C library makes a thread
SIGCHLD = 17
WORD = st.integers(0, 2**32 - 1)
PROGRAM = [struct.unpack("<HBBI", code) for code in re.findall(rb".{8}", jail_filter(), re.DOTALL)]
# What a QEMU cannot do without.
NEEDED = {
    **{"read": 0, "write": 1, "open": 2, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9},
    **{"mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "pread64": 17, "pwrite64": 18},
    **{"madvise": 28, "sendmsg": 46, "recvmsg": 47, "accept": 43, "execve": 59, "exit": 60},
    **{"fdatasync": 75, "ftruncate": 77, "prctl": 157, "futex": 202, "openat": 257, "ppoll": 271},
    **{"fallocate": 285, "eventfd2": 290, "pipe2": 293, "preadv": 295, "seccomp": 317},
    **{"getrandom": 318, "memfd_create": 319, "rseq": 334, "exit_group": 231},
}


def verdict(number: int, *arguments: int, architecture: int = X86_64) -> int:
    """What the filter says of a call."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture, 0x7F00DEADBEEF, *padded)
    at, loaded = 0, 0
    while True:
        code, if_true, if_false, constant = PROGRAM[at]
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("<I", data, constant)
                at += 1
            case 0x15 | 0x35 | 0x45:
                passes = {0x15: loaded == constant, 0x35: loaded >= constant}
                at += 1 + (if_true if passes.get(code, bool(loaded & constant)) else if_false)
            case 0x06:
                return int(constant)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def test_the_kernel_takes_the_program() -> None:
    assert len(PROGRAM) <= 4096
    for at, (code, if_true, if_false, constant) in enumerate(PROGRAM):
        if code & 7 == 5:
            assert at + 1 + max(if_true, if_false) < len(PROGRAM)
        if code == 0x20:
            assert constant % 4 == 0
            assert constant < 64
    assert PROGRAM[-1][0] == 0x06


@pytest.mark.parametrize("name", DENIED)
def test_a_denied_call_is_refused_whatever_its_arguments(name: str) -> None:
    for arguments in ((0,) * 6, (2**64 - 1,) * 6, (1,) * 6):
        assert verdict(DENIED[name], *arguments) == REFUSED


def test_names_and_numbers_are_the_kernels() -> None:
    defined = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    special = {
        "socket": seccomp.SOCKET,
        "socketpair": seccomp.SOCKETPAIR,
        "ioctl": seccomp.IOCTL,
        "clone": seccomp.CLONE,
        "fcntl": seccomp.FCNTL,
    }
    for name, number in (DENIED | MISSING | NEEDED | special).items():
        assert int(defined[name]) == number


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_machine_needs_is_allowed(name: str) -> None:
    assert verdict(NEEDED[name], *[2**64 - 1] * 6) == ALLOW


@pytest.mark.parametrize("name", MISSING)
def test_calls_that_cannot_be_looked_into_are_absent(name: str) -> None:
    assert verdict(MISSING[name]) == ABSENT


def test_calls_of_kernels_to_come_are_absent() -> None:
    for number in (seccomp.FIRST_UNKNOWN, 462, 10_000, seccomp.X32_BIT - 1):
        assert verdict(number) == ABSENT


@given(number=st.integers(0, 2**30 - 1))
def test_no_call_of_the_x32_kind_is_allowed(number: int) -> None:
    assert verdict(seccomp.X32_BIT | number) == REFUSED


@given(number=WORD, architecture=WORD.filter(lambda one: one != X86_64))
def test_another_architectures_call_ends_the_process(number: int, architecture: int) -> None:
    assert verdict(number, architecture=architecture) == KILL
    assert verdict(number, architecture=I386) == KILL
    assert verdict(number, architecture=AARCH64) == KILL


@given(family=WORD, high=WORD)
def test_sockets_are_unix_sockets(family: int, high: int) -> None:
    """The kernel takes the low half of the family, whatever the high one says."""
    for call in (seccomp.SOCKET, seccomp.SOCKETPAIR):
        allowed = verdict(call, high << 32 | family, 1, 0) == ALLOW
        assert allowed == (family == seccomp.AF_UNIX)
        assert verdict(call, high << 32 | seccomp.AF_UNIX, 1, 0) == ALLOW


@pytest.mark.parametrize("flags", [SIGCHLD, 0x10000000 | SIGCHLD, 0x4111, 0, 0x20000 | SIGCHLD])
def test_clone_makes_threads_alone(flags: int) -> None:
    assert verdict(seccomp.CLONE, THREAD) == ALLOW
    assert verdict(seccomp.CLONE, flags) == REFUSED
    assert verdict(seccomp.CLONE, 2**32 * THREAD | flags) == REFUSED


@given(high=WORD)
def test_no_typing_into_terminals_and_no_leases(high: int) -> None:
    for request in seccomp.TERMINAL_INJECTIONS:
        assert verdict(seccomp.IOCTL, 0, high << 32 | request) == REFUSED
    for command in seccomp.HOLD_UPS:
        assert verdict(seccomp.FCNTL, 0, high << 32 | command) == REFUSED
    assert verdict(seccomp.IOCTL, 0x5412, 0x5401) == ALLOW
    assert verdict(seccomp.FCNTL, 1024, 3) == ALLOW


@given(number=WORD, arguments=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
def test_every_call_has_one_of_four_verdicts(number: int, arguments: list[int]) -> None:
    assert verdict(number, *arguments) in {ALLOW, REFUSED, ABSENT, KILL}


def test_verdicts_say_which_error() -> None:
    assert REFUSED & 0xFFFF == errno.EPERM
    assert ABSENT & 0xFFFF == errno.ENOSYS
