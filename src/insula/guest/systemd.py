"""Telling systemd how a unit's main program is doing (sd_notify(3))."""

import os
import socket
from contextlib import suppress


def tell(text: str) -> None:
    """Tell it, if it started us and listens."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, suppress(OSError):
            listener.sendto(text.encode(), address.replace("@", "\0", 1))
