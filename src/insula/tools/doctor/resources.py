"""Room on the disk, and memory."""

import shutil
from pathlib import Path

from insula.client import instance
from insula.tools.doctor.finding import Finding, can_be_made, nearest_directory

GIB = 1 << 30
DISK_NEEDED = 12 * GIB
MEMORY_NEEDED = 4 * GIB


def disk() -> Finding:
    """Room for templates and qubes."""
    home = instance.home()
    if not can_be_made(home):
        text = f"{home} cannot be made, or not be written to"
        return Finding("disk", "lack", text, ("# set INSULA_HOME to a directory of your own",))
    free = shutil.disk_usage(nearest_directory(home)).free
    text = f"{free / GIB:.1f} GiB free at {home}"
    if free < DISK_NEEDED:
        fix = f"# free {(DISK_NEEDED - free) / GIB:.1f} GiB there, or set INSULA_HOME"
        return Finding("disk", "lack", text, (fix,))
    return Finding("disk", "ok", text)


def memory() -> Finding:
    """Memory for a few qubes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    total = int(fields["MemTotal"].split()[0]) * 1024
    available = int(fields["MemAvailable"].split()[0]) * 1024
    text = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    level = "ok" if available >= MEMORY_NEEDED else "warning"
    return Finding("memory", level, text)
