"""Says which message bus the session has, for notices of qubes to be shown on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "session.bus"


@contextmanager
def told(run: Path) -> Iterator[None]:
    """The bus is known in the block, if the session has one."""
    address = _address()
    path = run / NAME
    if address is not None:
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(f"{address}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _address() -> str | None:
    if given := os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return given
    usual = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "bus")
    return f"unix:path={usual}" if usual.exists() else None
