"""What is done before a snapshot, once, so that no clone has to do it."""

import mmap
import os
import subprocess
import time
from pathlib import Path

from insula.guest import private
from insula.guest.freeze import Frozen
from insula.guest.mounts import bind

MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PLACE = Path("/run/insula")
_WARM_UP_TIMEOUT = 60.0
_IDLE_TIMEOUT = 40.0
_LOOK = 0.25  # seconds between two looks
_QUIET_LOOKS = 18  # longer than udev's workers wait for more, before they end
_LEFT_ALONE = 24 * 1024 * 1024  # bytes of free memory, so that nothing is short of any
_IDLE_SHARE = 0.04  # of a processor, below which a machine counts as idle


class Parked:
    """A machine at rest: all others frozen, all that clones have in common done.

    machine_id, boot_id: descriptors of files that are shown where programs look for these.
    """

    def __init__(self) -> None:
        """Come to rest.

        Raises:
            OSError, NotFrozenError, PrivateVolumeError: it is not to be.
        """
        self.machine_id = _shown_from_memory(MACHINE_ID)
        self.boot_id = _shown_from_memory(_BOOT_ID)
        _wait_until_idle()
        self.frozen = Frozen()
        private.make_blank_usable()
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        _clear_free_memory()
        _warm_up()


def _wait_until_idle() -> None:
    """Let whatever still starts come to its end, or every clone would go on with it.

    A machine that never rests is parked all the same.
    """
    deadline = time.monotonic() + _IDLE_TIMEOUT
    used, quiet = _processor_time(), 0
    while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
        time.sleep(_LOOK)
        before, used = used, _processor_time()
        quiet = quiet + 1 if used - before < _IDLE_SHARE * _LOOK else 0


def _processor_time() -> float:
    """Seconds that everything but kernel threads and the agent has run."""
    used = 0
    for stat in Path("/sys/fs/cgroup").glob("*/cpu.stat"):
        if stat.parent.name != "insula.slice":
            used += int(stat.read_text().split(maxsplit=2)[1])
    return used / 1_000_000


def _shown_from_memory(path: Path) -> int:
    """Have a file's content come from one in memory, which is cheap to write; its descriptor."""
    place = _PLACE / path.name
    place.write_bytes(path.read_bytes())
    bind(str(place), str(path))
    return os.open(place, os.O_WRONLY | os.O_CLOEXEC)


def _clear_free_memory() -> None:
    """Have zeros where nothing is: neither secrets of the boot in a snapshot, nor bytes to keep."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemFree"].split()[0]) * 1024 - _LEFT_ALONE
    if free > 0:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, free, flags=flags).close()


def _warm_up() -> None:
    """Have what a first command needs in the page cache, which clones share."""
    for argv in (
        ["/bin/sh", "-c", "ip -brief link; nft list tables"],
        ["/bin/bash", "-lc", ":"],
        ["/bin/cat", "/dev/null"],
    ):
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=_WARM_UP_TIMEOUT,
            check=False,
        )
