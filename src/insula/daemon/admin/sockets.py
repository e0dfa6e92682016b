"""Sockets on which the daemon listens, and whether who connected is still there."""

import asyncio
import select
import socket
from pathlib import Path

from insula.protocol.errors import ReportableError

_PROBE_TIMEOUT = 1.0


class AddressInUseError(ReportableError):
    """Another program listens where we would."""


def listen(path: Path, kind: socket.SocketKind, backlog: int) -> socket.socket:
    """A listening socket for its owner alone; one that an earlier daemon left is replaced.

    Raises:
        AddressInUseError: somebody listens there.
    """
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except OSError as error:
            raise AddressInUseError(f"{path} cannot be taken over: {error}") from error
        else:
            taken = AddressInUseError(f"another program serves {path}")
            taken.hint = "End it, or set INSULA_RUN to another directory."
            raise taken
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


async def hung_up(connection: int) -> None:
    """Wait until the other side of a connection is closed for good.

    A transport whose peer has sent its end of file watches its socket no more; epoll tells of a
    hang-up alone where it is asked for nothing else.
    """
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    with select.epoll() as poll:
        poll.register(connection, 0)
        loop.add_reader(poll.fileno(), gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(poll.fileno())
