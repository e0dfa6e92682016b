"""The daemon has no network: a namespace of its own where it may make one, and a filter anywhere.

What it starts has none either, as these are services of dom0.
"""

import ctypes
import os

from insula.keeper.seccomp import network_filter

_CLONE_NEWNET = 0x40000000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38
_INSTRUCTION_SIZE = 8


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def seclude() -> None:
    """Have no network from now on, nor ever again. Before any thread is started.

    Raises:
        OSError: the kernel refuses the filter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        libc.unshare(_CLONE_NEWNET)  # Where even root may not, the filter does.
    program = network_filter()
    filtering = _Program(len(program) // _INSTRUCTION_SIZE, program)
    for words in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filtering), 0, 0),
    ):
        if libc.prctl(*words) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"no system call filter: {os.strerror(number)}")
