"""The daemon has no network: a namespace of its own where it may make one, and a filter anywhere.

What it starts has none either, as these are services of dom0.
"""

import ctypes
import os

from insula.keeper.confine import confinement
from insula.keeper.seccomp import network_filter

_CLONE_NEWNET = 0x40000000


def seclude() -> None:
    """Have no network from now on, nor ever again. Before any thread is started.

    Raises:
        OSError: the kernel refuses the filter.
    """
    if os.geteuid() == 0:
        ctypes.CDLL(None).unshare(_CLONE_NEWNET)  # Where even root may not, the filter does.
    confinement(network_filter())()
