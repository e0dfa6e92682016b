"""A process puts itself under a system call filter, and the programs that it starts."""

import ctypes
import os
from collections.abc import Callable

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38
_INSTRUCTION_SIZE = 8


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confinement(program: bytes) -> Callable[[], None]:
    """What puts the thread that calls it under a filter, for good; it may be called after a fork.

    It raises an OSError where the kernel refuses the filter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    filtering = _Program(len(program) // _INSTRUCTION_SIZE, program)
    calls = (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filtering), 0, 0),
    )

    def confine() -> None:
        for words in calls:
            if libc.prctl(*words) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"no system call filter: {os.strerror(number)}")

    return confine
