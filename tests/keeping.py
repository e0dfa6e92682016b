"""A keeper for the length of a test, and programs for its jails."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import insula.keeper
from insula.keeper.client import KeeperClient, start_keeper
from insula.keeper.spawn import parent
from insula.protocol.keeper import JailKind, JailSpec

SOURCES = Path(insula.keeper.__path__[0]).parent
TIMEOUT = 20.0  # seconds for anything that a test waits for
# As an instance that runs as root does it: a user of its own for each qube's processes.
UID = 764_000_016 if os.geteuid() == 0 else None


@dataclass(slots=True)
class Keeping:
    """A keeper that listens at path, with a client that watches it."""

    path: Path
    client: KeeperClient
    pid: int
    exits: asyncio.Queue[tuple[str, int]] = field(default_factory=asyncio.Queue)

    async def exit_of(self, name: str) -> int:
        """Wait until a process has ended; its status."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                ended, status = await self.exits.get()
                if ended == name:
                    return status

    def children(self) -> set[int]:
        """Processes the keeper is the parent of."""
        found = set()
        for entry in Path("/proc").iterdir():
            with suppress(ValueError, OSError):
                if parent(int(entry.name)) == self.pid:
                    found.add(int(entry.name))
        return found


@asynccontextmanager
async def keeping(user: int | None = None) -> AsyncIterator[Keeping]:
    """A keeper; whatever still runs in it is killed at the end. user: whose, if not ours."""
    scratch = Path(tempfile.mkdtemp(prefix="insula-"))
    path = scratch / "keeper.sock"
    try:
        if user is None:
            start_keeper(path, scratch / "keeper.log")
        else:
            _start_as(user, scratch)
        client = await KeeperClient.connect(path)
        made = Keeping(path, client, (await client.hello())["pid"])
        client.on_exit = lambda name, status: made.exits.put_nowait((name, status))
        await client.watch()
        try:
            yield made
        finally:
            await _end(made)
        log = (scratch / "keeper.log").read_text()
        assert not log, log
    finally:
        shutil.rmtree(scratch)


def _start_as(user: int, scratch: Path) -> None:
    """As `start_keeper`, with nothing but what every user can read."""
    for name in ("keeper", "protocol"):
        shutil.copytree(SOURCES / name, scratch / "insula" / name)
    os.chown(scratch, user, user)
    argv = ["/usr/bin/python3", "-m", "insula.keeper", "--socket", str(scratch / "keeper.sock")]
    subprocess.run(
        [*argv, "--background", str(scratch / "keeper.log")],
        env={"PYTHONPATH": str(scratch), "HOME": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        **as_user(user),
        timeout=TIMEOUT,
        check=True,
    )


def as_user(uid: int | None) -> dict[str, Any]:
    """Options of subprocess to become a user."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


async def _end(made: Keeping) -> None:
    client = await KeeperClient.connect(made.path)
    async with asyncio.timeout(TIMEOUT):
        for name in await client.list():
            await client.kill(name)
        while any(one.exit is None for one in (await client.list()).values()):
            await asyncio.sleep(0.005)
        await client.stop()
    await client.close()
    await made.client.close()


def shell(script: str) -> JailSpec:
    """A jail with a shell, which cannot start programs but has words of its own."""
    return JailSpec(
        kind=JailKind.VIEWER,
        program=("/usr/bin/dash", "-c", script),
        read_only=(("/usr/bin/dash", "/usr/bin/dash"), ("/usr/bin/sleep", "/usr/bin/sleep")),
        uid=UID,
    )


SLEEPER = shell("exec /usr/bin/sleep 600")


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that no event announces.

    Raises:
        AssertionError: it did not come within TIMEOUT.
    """
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.005)


def gone(pid: int) -> bool:
    """Whether nothing of a process is left, not even for its parent to wait for."""
    return not Path("/proc", str(pid)).exists()
