"""What services write to standard error, in the system log as well (qrexec-wire.md section 7.9)."""

import os
import subprocess
from contextlib import suppress

from insula.qrexec.loop import Loop


def start_logger(loop: Loop, tag: str) -> int:
    """A descriptor for what is to be logged under a tag; -1 where no program is there that logs."""
    reading, writing = os.pipe()
    try:
        logger = subprocess.Popen(
            ["logger", "-t", tag],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        os.close(writing)
        return -1
    finally:
        os.close(reading)
    os.set_blocking(writing, False)
    logger.returncode = 0  # The loop reaps it.
    loop.on_exit(logger.pid, lambda _status: None)
    return writing


class ErrorLog:
    """Logs as much as the logger takes at once. It is started when there is something to log."""

    def __init__(self, loop: Loop, tag: str) -> None:
        self._loop, self._tag = loop, tag
        self._descriptor: int | None = None

    def write(self, data: bytes) -> None:
        """Log data, or leave it: the caller of the service gets it all the same."""
        if self._descriptor is None:
            self._descriptor = start_logger(self._loop, self._tag)
        if self._descriptor >= 0:
            with suppress(OSError):
                os.write(self._descriptor, data)

    def close(self) -> None:
        """There is nothing more to log."""
        if self._descriptor is not None and self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
