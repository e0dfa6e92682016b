"""One QEMU's monitor: commands with deadlines, descriptors, events."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

from qemu.qmp import ConnectError, QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from insula.daemon.engine.interface import EngineError, MachineGoneError

COMMAND_TIMEOUT = 20.0

log = logging.getLogger(__name__)


class Monitor:
    """A connection to a monitor. Descriptors and the commands that name them go under one lock."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._client = QMPClient(name)
        self._descriptors = asyncio.Lock()
        self._fdname = 0

    async def connect(self, deadline: float) -> Self:
        """Greet the QEMU, which may only just be starting behind its listening socket.

        Raises:
            EngineError: it did not answer within deadline seconds.
        """
        try:
            async with asyncio.timeout(deadline):
                await self._client.connect(str(self._path))
        except (ConnectError, QMPError, OSError, TimeoutError) as error:
            raise EngineError(f"{self._name}: its monitor does not answer: {error}") from error
        return self

    async def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        deadline: float | None = None,
    ) -> Any:
        """Run a command and return its answer.

        Raises:
            EngineError: QEMU refused it or did not answer in time.
            MachineGoneError: the connection ended.
        """
        try:
            async with asyncio.timeout(deadline):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise EngineError(f"{self._name}: {command}: {error}") from error
        except TimeoutError:
            raise EngineError(f"{self._name}: {command}: no answer") from None
        except (QMPError, OSError, EOFError) as error:
            raise MachineGoneError(f"{self._name}: {command}: {error}") from error

    async def with_descriptor(
        self, descriptor: int, command: str, arguments: Callable[[str], dict[str, Any]]
    ) -> Any:
        """Pass a descriptor (getfd) and run the command that uses it by name."""
        async with self._descriptors:
            self._fdname += 1
            fdname = f"fd{self._fdname}"
            try:
                self._client.send_fd_scm(descriptor)
            except (OSError, AssertionError) as error:
                raise MachineGoneError(f"{self._name}: {command}: {error}") from error
            await self.execute("getfd", {"fdname": fdname})
            try:
                return await self.execute(command, arguments(fdname))
            except MachineGoneError:
                raise
            except EngineError:
                with suppress(EngineError):
                    await self.execute("closefd", {"fdname": fdname})
                raise

    async def add_descriptor(self, descriptor: int) -> tuple[int, int]:
        """Give the QEMU a descriptor for a set of its own; the numbers of set and descriptor."""
        async with self._descriptors:
            try:
                self._client.send_fd_scm(descriptor)
            except (OSError, AssertionError) as error:
                raise MachineGoneError(f"{self._name}: add-fd: {error}") from error
            added = await self.execute("add-fd")
            return int(added["fdset-id"]), int(added["fd"])

    async def until(
        self,
        event: str,
        matches: Callable[[dict[str, Any]], bool],
        deadline: float,
        command: str,
        arguments: dict[str, Any],
    ) -> None:
        """Run a command and wait for the event that says it came to its end.

        Raises:
            EngineError: QEMU refused it, or the event did not come in deadline seconds.
            MachineGoneError: the connection ended.
        """
        with self._client.listener(event) as listener:
            await self.execute(command, arguments)
            try:
                async with asyncio.timeout(deadline):
                    async for one in listener:
                        if matches(cast(dict[str, Any], one.get("data", {}))):
                            return
            except TimeoutError:
                raise EngineError(f"{self._name}: {command} does not come to its end") from None
        raise MachineGoneError(f"{self._name}: {command}: the connection ended")

    async def close(self) -> None:
        """Disconnect; the QEMU goes on."""
        with suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()
