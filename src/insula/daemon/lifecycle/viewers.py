"""One jailed viewer process for each qube that is shown.

A viewer gets descriptors to work with: a connection to the person's X server, one to the qube's
window port, the qube's pixel region, and a socket to the person's session. It does nothing before
its jail was looked at.
"""

import asyncio
import json
import logging
import os
import socket
import sys
import sysconfig
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import UUID
from weakref import WeakValueDictionary

from insula.daemon.lifecycle.running import machine_name, run_directory
from insula.keeper.address import address
from insula.keeper.client import (
    JailError,
    KeeperClient,
    KeeperError,
    Requirements,
    Spawned,
    assert_jailed,
    described,
)
from insula.protocol.errors import ReportableError
from insula.protocol.keeper import Facts, JailKind, JailSpec

START_TIMEOUT = 20.0  # seconds until a viewer has loaded its program, on a busy host
END_TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0
LAY_OUT_TIMEOUT = 60.0
PLACE = "/insula"  # of the viewer's own files in its jail
# Where viewers' files lie when each viewer is a user of its own, who can reach nothing of ours.
FOR_ALL = Path("/run/insula-viewers")
_ADDRESS_SPACE = 1024**3  # bytes; a qube that has its viewer hoard memory ends it
_X, _CHANNEL, _PIXELS, _GATE, _SESSION = 3, 4, 5, 6, 7  # descriptors in the viewer
_ROOT = frozenset(("dev", "insula", "lib", "lib64", "proc", "usr"))
_PREFIX = "viewer-"  # of a viewer's name at the keeper
_SAID = 800  # characters of a process's last words
_POLL = 0.01

log = logging.getLogger(__name__)


class ViewerError(ReportableError):
    """A qube's windows cannot be shown."""


class Viewers:
    """Opens viewers and ends them; keeps nothing that a restart of the daemon could lose."""

    def __init__(self, keeper: KeeperClient, run: Path, *, root: bool) -> None:
        self._keeper = keeper
        self._run = run
        self._root = root
        self._files: asyncio.Task[Path] | None = None
        self._busy: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def prepare(self) -> None:
        """Have the files that viewers run ready, so that the first one need not wait for them.

        Raises:
            ViewerError: they could not be laid out.
        """
        if self._files is None or (self._files.done() and not _is_there(self._files)):
            below = FOR_ALL if self._root else self._run / "viewer"
            self._files = asyncio.create_task(_lay_out(below))
        await asyncio.shield(self._files)

    async def open(
        self,
        *,
        uuid: UUID,
        name: str,
        label: tuple[int, int],
        uid: int,
        options: dict[str, object],
        display: int,
        authorization: tuple[bytes, bytes],
        session: int | None = None,
    ) -> Spawned:
        """Show a running qube's windows; a viewer that it has already is ended first.

        label: index and colour as 0xRRGGBB. options: of gui.md section 16. display: a fresh
        connection to the X server, which stays the caller's. authorization: name and data of the
        X server's access control. session: a socket to the person's session, the caller's too.

        Raises:
            ViewerError: the qube has no window port, or the viewer did not start.
            JailError: its jail is not wholly in force; it was ended.
        """
        await self.prepare()
        await self._sweep()
        lock = self._busy.setdefault(uuid, asyncio.Lock())
        async with lock:
            await self._end(uuid)
            config = {
                "name": name,
                "color": f"{label[1]:06x}",
                "label": label[0],
                "options": options,
            }
            with ExitStack() as opened:
                pixels = await self._pixels(uuid, opened)
                channel = await _connect(name, run_directory(self._run, uuid) / "gui.sock", opened)
                ours, theirs = (opened.enter_context(end) for end in socket.socketpair())
                jail = self._jail(config, authorization, uid, hears=session is not None)
                given = [display, channel.fileno(), pixels, theirs.fileno()]
                kept = [display, channel.fileno(), pixels]
                if session is not None:
                    given.append(session)
                    kept.append(session)
                spawned = await self._keeper.spawn(viewer_name(uuid), jail, given)
                try:
                    theirs.close()
                    await self._let_in(viewer_name(uuid), name, jail, ours, described(kept))
                except BaseException:
                    os.close(spawned.pidfd)
                    await self._end(uuid)
                    raise
                return spawned

    async def close(self, uuid: UUID) -> None:
        """End a qube's viewer, if it has one; returns when nothing of it is left."""
        lock = self._busy.setdefault(uuid, asyncio.Lock())
        async with lock:
            await self._end(uuid)

    async def pids(self) -> dict[UUID, int]:
        """The viewers that run, by their qubes."""
        found = {}
        for name, process in (await self._keeper.list()).items():
            if name.startswith(_PREFIX) and process.exit is None:
                found[UUID(name.removeprefix(_PREFIX))] = process.pid
        return found

    def _jail(
        self,
        config: dict[str, object],
        authorization: tuple[bytes, bytes],
        uid: int,
        *,
        hears: bool,
    ) -> JailSpec:
        assert self._files is not None
        name, data = authorization
        environment = {"PYTHONPATH": PLACE, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
        if name:
            environment["INSULA_X_AUTHORITY"] = f"{name.decode('ascii')}:{data.hex()}"
        interpreter = str(Path(sys.executable).resolve())
        library = sysconfig.get_path("stdlib")
        return JailSpec(
            kind=JailKind.VIEWER,
            program=(
                *(interpreter, "-sSP", "-m", "insula.viewer"),
                *("--x-fd", str(_X), "--channel-fd", str(_CHANNEL), "--pixels-fd", str(_PIXELS)),
                *("--gate-fd", str(_GATE), "--config", json.dumps(config)),
                *(("--session-fd", str(_SESSION)) if hears else ()),
            ),
            descriptors=(_X, _CHANNEL, _PIXELS, _GATE, *((_SESSION,) if hears else ())),
            environment=environment,
            uid=uid if self._root else None,
            read_only=(
                (interpreter, interpreter),
                (library, library),
                (str(self._files.result()), PLACE),
            ),
            address_space=_ADDRESS_SPACE,
        )

    async def _pixels(self, uuid: UUID, opened: ExitStack) -> int:
        try:
            pixels = await self._keeper.take(f"pixels/{machine_name(uuid)}")
        except KeyError:
            raise ViewerError("the qube has no pixels to show; it is not running") from None
        opened.callback(os.close, pixels)
        return pixels

    async def _let_in(
        self, process: str, name: str, jail: JailSpec, gate: socket.socket, given: frozenset[str]
    ) -> None:
        """Look at the jail of a viewer that has loaded its program, and let it begin."""
        gate.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                loaded = await loop.sock_recv(gate, 1)
        except (TimeoutError, ConnectionError):
            loaded = b""
        if not loaded:
            said = (await self._keeper.log(process)).strip()[-_SAID:]
            raise ViewerError(f"the viewer of {name} did not start: {said}")
        try:
            facts = await self._keeper.verify(process)
        except KeyError:
            raise ViewerError(f"the viewer of {name} ended at once") from None
        wanted = Requirements(uid=jail.uid, seccomp=False, given=given, kind=JailKind.VIEWER)
        assert_jailed(facts, wanted)
        _assert_sees_only(facts, jail)
        with suppress(ConnectionError):  # it has ended by now: whoever watches it will see that
            await loop.sock_sendall(gate, b"\0")

    async def _sweep(self) -> None:
        """Have the keeper forget viewers that ended with their qubes, or before them."""
        for process, listed in (await self._keeper.list()).items():
            if process.startswith(_PREFIX) and listed.exit is not None:
                with suppress(KeyError, KeeperError):  # another is opened in its place right now
                    said = (await self._keeper.log(process)).strip()[-_SAID:]
                    await self._keeper.forget(process)
                    log.info(
                        "viewer ended",
                        extra={"viewer": process, "status": listed.exit, "said": repr(said)},
                    )

    async def _end(self, uuid: UUID) -> None:
        process = viewer_name(uuid)
        with suppress(KeyError):
            await self._keeper.kill(process)
            async with asyncio.timeout(END_TIMEOUT):
                while not await self._forget(process):
                    await asyncio.sleep(_POLL)

    async def _forget(self, process: str) -> bool:
        """Whether a process has ended and the keeper remembers it no more."""
        try:
            await self._keeper.forget(process)
        except KeeperError:
            return False
        return True


def viewer_name(uuid: UUID) -> str:
    """What the keeper calls a qube's viewer."""
    return f"{_PREFIX}{uuid}"


def _assert_sees_only(facts: Facts, jail: JailSpec) -> None:
    """Refuse a viewer that sees more of the host than its program.

    Raises:
        JailError: names what.
    """
    bound = tuple(place for _, place in jail.read_only)
    more = sorted(set(facts.root_entries) - _ROOT)
    more += [
        place
        for place, _ in facts.mounts
        if place not in ("/", *bound) and not place.startswith(("/proc", "/dev", "/usr/lib"))
    ]
    if more:
        raise JailError(f"the jail is not in force: the viewer sees {', '.join(more)}")


def _is_there(files: asyncio.Task[Path]) -> bool:
    return not files.cancelled() and files.exception() is None and files.result().is_dir()


async def _lay_out(below: Path) -> Path:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "insula.viewer.files", str(below)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LAY_OUT_TIMEOUT):
            out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        why = said.decode(errors="replace").strip()[-_SAID:]
        raise ViewerError(f"viewers cannot be started, their files are not there: {why}")
    return Path(out.decode().strip())


async def _connect(name: str, path: Path, opened: ExitStack) -> socket.socket:
    """A connection to a qube's window port."""
    channel = opened.enter_context(socket.socket(socket.AF_UNIX))
    channel.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            with address(path) as where:
                # Not sock_connect: it takes a full queue, which is no connection, for one.
                while True:
                    try:
                        channel.connect(where)
                    except BlockingIOError:
                        await asyncio.sleep(_POLL)
                    else:
                        return channel
    except OSError as error:  # TimeoutError is one.
        raise ViewerError(f"the window port of {name} does not answer: {error}") from error
