"""Where ports to the host come from: a qube's kernel, or sockets where the agent is a process."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from insula.qrexec.loop import READ, Loop
from insula.qrexec.port import Port, SocketPort


class ListeningPort(SocketPort):
    """A port that is a listening socket's newest connection."""

    def __init__(self, loop: Loop, path: Path) -> None:
        super().__init__(loop)
        self._reading = False  # Whoever opens it is to get all that comes.
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        self._listener.listen(2)
        loop.add(self._listener.fileno(), READ, lambda _events: self.accept())

    def accept(self) -> None:
        """Serve a connection that waits, if one does; an earlier one is over then."""
        with suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self.close()
            self.use(connection.detach())

    def hand_over(self) -> int:
        """The descriptor of the connection that waits, or is there; it is another's from now on.

        Raises:
            OSError: there is none.
        """
        self.accept()
        own = self.take()
        if own < 0:
            raise ConnectionError("nobody is connected")
        return own


class VirtioPorts:
    """The ports of a qube, as the kernel has them."""

    def __init__(self, loop: Loop, directory: Path = Path("/sys/class/virtio-ports")) -> None:
        self._loop = loop
        self._paths = {
            (entry / "name").read_text().strip(): Path("/dev", entry.name)
            for entry in directory.iterdir()
        }

    def open(self, name: str) -> Port:
        """Open a port anew; what an earlier session left in it is gone from our side."""
        port = Port(self._loop)
        port.use(os.open(self._paths[name], os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        return port

    def open_for_another(self, name: str) -> int:
        """A port's descriptor, for another process to use."""
        return os.open(self._paths[name], os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def done(self, port: Port) -> None:
        """End the use of a data port."""
        port.close()


class SocketPorts:
    """Ports as listening sockets in a directory, for tests and the in-memory engine."""

    def __init__(self, loop: Loop, directory: Path, names: list[str]) -> None:
        self._ports = {name: ListeningPort(loop, directory / name) for name in names}

    def open(self, name: str) -> Port:
        """The port of that name, connected or not."""
        port = self._ports[name]
        port.accept()
        port.resume()
        return port

    def open_for_another(self, name: str) -> int:
        """The connection that waits on a port, for another process to use."""
        return self._ports[name].hand_over()

    def done(self, port: Port) -> None:
        """End the connection; the port goes on listening."""
        port.pause()
        port.close()
