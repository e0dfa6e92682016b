"""The socket vchan: a vchan as a Unix socket, for ends that run outside of machines.

Source of the format: qrexec-wire.md section 15.
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

CONTROL_PORT = 512
_DIRECTORY = "/var/run/vchan"
_POLL = 0.01  # seconds between two tries to connect


def own_domain() -> int:
    """The domain number of this process, as the environment has it.

    Raises:
        ValueError: that is no number.
    """
    return int(os.environ.get("VCHAN_DOMAIN", "0"))


def path_of(server: int, client: int, port: int) -> Path:
    """Where the server of a vchan listens."""
    directory = Path(os.environ.get("VCHAN_SOCKET_DIR", _DIRECTORY))
    return directory / f"vchan.{server}.{client}.{port}.sock"


class Server:
    """Serves one connection to a vchan, which is all that it has."""

    def __init__(self, client: int, port: int) -> None:
        """Listen for a domain.

        Raises:
            OSError: the socket could not be made.
        """
        self._path = path_of(own_domain(), client, port)
        with suppress(FileNotFoundError):
            self._path.unlink()
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(str(self._path))
            self._listener.listen(1)
        except OSError:
            self._listener.close()
            raise

    def fileno(self) -> int:
        """Readable once the other end is there."""
        return self._listener.fileno()

    def accept(self, timeout: float | None = None) -> socket.socket:
        """The connection.

        Raises:
            OSError: nobody came within timeout seconds (TimeoutError).
        """
        self._listener.settimeout(timeout)
        try:
            return self._listener.accept()[0]
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


def connect(server: int, port: int, timeout: float | None) -> socket.socket:
    """Connect to a domain's vchan, trying until it is there.

    Raises:
        TimeoutError: it was not within timeout seconds (None: no limit).
        OSError: it cannot be connected to.
    """
    path = path_of(server, own_domain(), port)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
        except OSError:
            connection.close()
            raise
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{path}: nobody listens")
        time.sleep(_POLL)
