"""The time as one qube tells it to another (in-qube.md section 5)."""

import re
from datetime import UTC, datetime

SERVICE = "qubes.GetDate+nanoseconds"
LONGEST = 36  # bytes
_TIME = re.compile(rb"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:,(\d{9}))?\+00:00\n", re.ASCII)
_EARLIEST = datetime(2022, 7, 10, 17, 8, 31, tzinfo=UTC)


def parse_time(untrusted: bytes) -> int:
    """Nanoseconds since the epoch.

    Raises:
        ValueError: it is no time, or one that has been.
    """
    found = _TIME.fullmatch(untrusted)
    if found is None or len(untrusted) > LONGEST:
        raise ValueError(f"not a time: {untrusted[:LONGEST]!r}")
    moment = datetime.fromisoformat(found[1].decode()).replace(tzinfo=UTC)
    if moment <= _EARLIEST:
        raise ValueError(f"{moment} has been")
    return int(moment.timestamp()) * 10**9 + int(found[2] or 0)
