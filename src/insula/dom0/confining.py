"""What a call of a qube to a service of dom0 leaves to the processes that serve it.

The process that reads what the qube sends finds and starts the service first, which takes nothing
from the qube; then it keeps what is open, and nothing more: whoever takes it over can say to the
service what the qube could say anyway. Services of ours start no process and reach no network; a
service that the person added may be anything, and keeps what the daemon leaves to it.
"""

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from insula.keeper.confine import confinement
from insula.keeper.seccomp import service_filter, settled_filter
from insula.qrexec.programs import Program

_MIB = 1024 * 1024
_OF_THE_END = {"AS": 512 * _MIB, "NOFILE": 64, "NPROC": 0, "FSIZE": 0}
_OF_A_SERVICE = {"AS": 1024 * _MIB, "NOFILE": 256}
_EXPENDABLE = "500"  # by which the kernel ends it before others when memory is short


def prepare() -> None:
    """Leave no core file, which could hold a qube's data, and be the first to go for memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_EXPENDABLE)


def settle() -> None:
    """Keep what is open, and nothing more.

    Raises:
        OSError: the kernel refuses the filter.
    """
    confine = confinement(settled_filter())
    _limit(_OF_THE_END)
    confine()


def confined(program: Program, ours: str) -> Program:
    """A program with less left to it, if it lies in the directory of our services."""
    if os.path.dirname(os.fsdecode(program.executable)) != ours:  # noqa: PTH120 - as it was found
        return program
    return replace(program, before=service_confinement())


def service_confinement() -> Callable[[], None]:
    """What is called in the process of a service of ours, before it becomes that."""
    confine = confinement(service_filter())

    def before() -> None:
        _limit(_OF_A_SERVICE)
        confine()

    return before


def _limit(limits: dict[str, int]) -> None:
    for name, most in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (least, least))
