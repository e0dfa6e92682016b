"""Services of the admin domain, each call of one in a process of its own.

The bytes of a qube reach that process alone, never the daemon.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from insula.protocol.errors import ReportableError

_PROGRAM = "insula.dom0.service_end"

log = logging.getLogger(__name__)


class HostServices:
    """Starts them. services, configs: directories in which they are looked for.

    run: where the daemon's sockets are.
    """

    def __init__(self, services: Iterable[Path], configs: Iterable[Path], run: Path) -> None:
        self._environment = {
            "INSULA_RUN": str(run),
            "QREXEC_SERVICE_PATH": ":".join(map(str, services)),
            "QUBES_RPC_CONFIG_PATH": ":".join(map(str, configs)),
        }
        self._watched: dict[int, int] = {}  # pidfds, by pid

    def run(
        self, descriptor: str, end: socket.socket, nonce: bytes, on_over: Callable[[], None]
    ) -> None:
        """Run a service over a connection; end stays the caller's.

        descriptor: as in qrexec-wire.md section 8, after QUBESRPC.

        Raises:
            ReportableError: no process could be started.
        """
        try:
            process = subprocess.Popen(
                (sys.executable, "-Psm", _PROGRAM, str(end.fileno()), nonce.hex(), descriptor),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(end.fileno(),),
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        except OSError as error:
            raise ReportableError(f"no service of dom0 can be started: {error}") from error
        process.returncode = 0  # It is reaped here, unless it outlives us.
        pidfd = os.pidfd_open(process.pid)
        self._watched[process.pid] = pidfd
        name = descriptor.partition(" ")[0]
        asyncio.get_running_loop().add_reader(pidfd, self._ended, process.pid, name, on_over)

    def _ended(self, pid: int, service: str, on_over: Callable[[], None]) -> None:
        self._forget(pid)
        _, status = os.waitpid(pid, 0)
        if status:  # Whatever becomes of the call, that end of it ends well.
            log.warning("a call to dom0 broke off", extra={"service": service, "status": status})
        on_over()

    def _forget(self, pid: int) -> None:
        pidfd = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)

    def close(self) -> None:
        """Stop looking after services; they go on."""
        for pid in tuple(self._watched):
            self._forget(pid)
