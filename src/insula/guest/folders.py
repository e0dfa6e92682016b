"""Looking into directories that are mostly empty or not there, on every start's path."""

import os


def names_in(directory: str, suffix: str = "") -> list[str]:
    """Paths of a directory's entries in order, hidden ones aside; none where there is none."""
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - pathlib is slow here
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        f"{directory}/{name}"
        for name in names
        if name.endswith(suffix) and not name.startswith(".")
    ]
