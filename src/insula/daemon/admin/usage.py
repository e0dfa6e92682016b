"""What machines, and the host beside them, take of its memory and its processors."""

import os
from collections.abc import Iterable
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds
# Of a line of /proc/stat: those that are work, and those of them that are the work of guests.
_BUSY, _GUESTS = (0, 1, 2, 5, 6), (8, 9)


def used(pid: int) -> tuple[int, int]:
    """KiB of memory and nanoseconds of processor time of a process; zeros when it is gone."""
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
        # Behind the program's name, which may hold anything: state is field 3, user time 14.
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return pages * _PAGE // 1024, ticks * _TICK
    except (OSError, ValueError, IndexError):
        return 0, 0


def used_beside(machines: Iterable[int]) -> tuple[int, int]:
    """The same of the host without its machines, whose processes are given."""
    try:
        memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        taken = _kibibytes(memory["MemTotal"]) - _kibibytes(memory["MemAvailable"])
        numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        ticks = sum(numbers[at] for at in _BUSY) - sum(numbers[at] for at in _GUESTS)
    except (OSError, ValueError, KeyError, IndexError):
        return 0, 0
    beside = taken - sum(used(pid)[0] for pid in machines)
    return max(beside, 0), max(ticks, 0) * _TICK


def _kibibytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0])
