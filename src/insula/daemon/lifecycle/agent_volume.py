"""The volume with the agent that every qube runs, kept up to date with this package."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from insula.daemon.model.machine import Disk, Layer
from insula.protocol.errors import ReportableError

FILE = "agent.img"
_TIMEOUT = 60.0


class AgentVolumeError(ReportableError):
    """There is no agent volume, so no qube can start."""


class AgentVolume:
    """Made by the builder in a process of its own, so that nothing else waits for it."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._digest = ""
        self._making: asyncio.Task[str] | None = None

    async def ready(self) -> None:
        """Wait until the volume has this package's agent.

        Raises:
            AgentVolumeError: it could not be made.
        """
        if self._digest:
            return
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make())
            self._making.add_done_callback(_retrieve)
        self._digest = await asyncio.shield(self._making)

    async def close(self) -> None:
        """Give up making it."""
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)

    @property
    def digest(self) -> str:
        """What its content is, once it is ready."""
        return self._digest

    @property
    def disk(self) -> Disk:
        """The disk of a machine, once it is ready."""
        layer = Layer(self._path, "raw")
        try:
            size = self._path.stat().st_size
        except OSError as error:
            self._digest = ""  # So that the next start makes it anew.
            raise AgentVolumeError(f"the agent volume is gone: {error}") from error
        return Disk("agent", (layer,), True, size)

    async def _make(self) -> str:
        words = (sys.executable, "-m", "insula.template.agent_volume", str(self._path))
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_TIMEOUT):
                digest, said = await process.communicate()
        except TimeoutError:
            raise AgentVolumeError("the agent volume was not made in time") from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode:
            text = said.decode(errors="replace").strip()
            raise AgentVolumeError(f"the agent volume could not be made: {text}")
        return digest.decode().strip()


def _retrieve(making: "asyncio.Task[str]") -> None:
    """Look at how it ended: who waited for it may be gone."""
    if not making.cancelled():
        making.exception()
