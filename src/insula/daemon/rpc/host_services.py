"""Services of the admin domain, each call of one in a process of its own.

The bytes of a qube reach that process alone, never the daemon.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from insula.protocol.errors import ReportableError

_PROGRAM = "insula.dom0.service_end"


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
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, descriptor: str, end: socket.socket, nonce: bytes, on_over: Callable[[], None]
    ) -> None:
        """Run a service over a connection; end stays the caller's.

        descriptor: as in qrexec-wire.md section 8, after QUBESRPC.

        Raises:
            ReportableError: no process could be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-s", "-m", _PROGRAM, str(end.fileno()), nonce.hex(), descriptor),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(end.fileno(),),
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        except OSError as error:
            raise ReportableError(f"no service of dom0 can be started: {error}") from error
        task = asyncio.create_task(_over(process, on_over))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop looking after services; they go on."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _over(process: asyncio.subprocess.Process, on_over: Callable[[], None]) -> None:
    await process.wait()
    on_over()
