"""Removing what was moved."""

import subprocess
from collections.abc import Sequence


def remove(paths: Sequence[str]) -> int:
    """Remove files, and directories with all in them; 0, or 1 if something is left."""
    return min(1, abs(subprocess.run(["rm", "-rf", "--", *paths], check=False).returncode))
