"""Running the probe in jails and, to show what it can do, outside of them."""

import asyncio
import fcntl
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from insula.daemon.engine.qemu.arguments import BINARY, SANDBOX
from insula.keeper.client import Requirements, assert_jailed, described
from insula.keeper.jail import bwrap_argv
from insula.protocol.keeper import JailKind, JailSpec
from tests.jail.tries import PATHS, SOCKETS
from tests.keeping import TIMEOUT, UID, Keeping, as_user

SOURCE = Path(__file__).with_name("probe.c")
OTHER_UID = UID and UID + 16
BAD_CALL = 128 + signal.SIGSYS
RAM_SIZE = 8 << 20
REPORT, RAM, DISK, LIBRARY, QMP = NUMBERS = (10, 11, 12, 13, 14)
BEYOND = 77  # a descriptor that is not on the probe's list
ALL_SEALS = 0xF
VICTIM = """
import ctypes, os, sys
os.dup2(os.memfd_create("ram"), 11)
memory = ctypes.create_string_buffer(64)
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1 & 2**64 - 1), 0, 0, 0)
print(f"{ctypes.addressof(memory):x}", flush=True)
sys.stdin.read()
"""


@dataclass(slots=True)
class Report:
    """What became of each try: "refused ERRNO", "reached WHAT" or "killed"."""

    outcomes: dict[str, str] = field(default_factory=dict)
    done: bool = False
    gone: bool = False

    def take(self, line: str) -> None:
        name, outcome = line.split(": ", 1) if not line.startswith(":") else ("", line[2:])
        if outcome == "done":
            self.done = True
        elif outcome == "gone":
            self.gone = True
        else:
            self.outcomes[name] = outcome

    @property
    def pending(self) -> str | None:
        """The try in whose middle the process ended."""
        return next((name for name, what in self.outcomes.items() if what == "trying"), None)


@dataclass(frozen=True, slots=True)
class World:
    """What there is on the host that a jailed process should not reach, open to every user."""

    scratch: Path
    preloaded: Path
    port: int
    victim: int
    victim_memory: str

    def variables(self, pid: int) -> dict[str, str]:
        """What the probe is told of it. pid: of another qube's machine."""
        paths = (
            *(self.scratch / "other.img", self.scratch / "own.img"),
            *(f"/proc/{pid}/fd/{RAM}", f"/proc/{pid}/root"),
            *(self.scratch / "home" / "id", self.scratch / "insula.db"),
        )
        sockets = (*(self.scratch / name for name in "qcKd"), "@insula-probe", self.scratch / "X")
        return {
            "PROBE_PATHS": _lines(PATHS, paths),
            "PROBE_SOCKETS": _lines(SOCKETS, sockets),
            "PROBE_PORT": str(self.port),
            "PROBE_PID": str(self.victim),
            "PROBE_ADDRESS": self.victim_memory,
            "PROBE_REPORT": str(REPORT),
            "PROBE_RAM": str(RAM),
            "PROBE_DISK": str(DISK),
            "PROBE_FDS": f",{','.join(map(str, NUMBERS))},",
            "LD_PRELOAD": f"/proc/self/fd/{LIBRARY}",
        }

    def file_of(self, owner: int) -> Path:
        """A new file of a user's own, with nothing but zeros in it."""
        path = self.scratch / f"disk-{owner}"
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(4096))
        path.chmod(0o600)
        os.chown(path, owner, owner)
        return path


def _lines(names: Sequence[str], values: Sequence[object]) -> str:
    return "\n".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


@contextmanager
def world() -> Iterator[World]:
    """Files, sockets, a server and a process for the probe to go after."""
    with ExitStack() as undo:
        scratch = Path(tempfile.mkdtemp(prefix="insula-jail-"))
        undo.callback(shutil.rmtree, scratch)
        scratch.chmod(0o755)
        preloaded = scratch / "probe.so"
        words = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]
        subprocess.run([*words, str(preloaded), str(SOURCE)], check=True, timeout=120)
        (scratch / "home").mkdir()
        for name in ("other.img", "own.img", "insula.db", "home/id"):
            (scratch / name).write_bytes(bytes(4096))
            (scratch / name).chmod(0o666)
        server = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        for name in ("q", "c", "K", "d", "X", "\0insula-probe"):
            listener = undo.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(name if name.startswith("\0") else str(scratch / name))
            listener.listen(8)
            if not name.startswith("\0"):
                (scratch / name).chmod(0o666)
        victim = undo.enter_context(
            subprocess.Popen(
                ["/usr/bin/python3", "-c", VICTIM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                **as_user(UID),
            )
        )
        undo.callback(victim.kill)
        assert victim.stdout is not None
        memory = victim.stdout.readline().decode().strip()
        yield World(scratch, preloaded, server.getsockname()[1], victim.pid, memory)


def qemu(*words: str) -> tuple[str, ...]:
    """A QEMU that is there and does nothing."""
    quiet = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "16")
    return (BINARY, "-M", "none", *quiet, *words)


def memory(*, sealed: bool) -> int:
    """Memory as a snapshot's, or one that anybody may change."""
    descriptor = os.memfd_create("ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, RAM_SIZE)
    if sealed:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, ALL_SEALS)
    return descriptor


@dataclass(frozen=True, slots=True)
class InJail:
    """The probe in a machine's jail.

    uid: the user of its own that it gets, or None where keeper and machine are one user. owner:
    whom the file belongs to that it may read. sandbox: with QEMU's own filter.
    """

    keeper: Keeping
    world: World
    uid: int | None
    owner: int
    sandbox: bool

    async def run(self) -> Report:
        """All tries; one that ends the process is left out and the rest done anew."""
        other = await self._other()
        disk = self.world.file_of(self.owner)
        whole = Report()
        try:
            while not whole.done:
                report = await self._once(other, disk, whole)
                whole.outcomes |= report.outcomes
                whole.done = report.done
        finally:
            await self.keeper.client.kill("other")
            await self.keeper.exit_of("other")
        assert disk.read_bytes() == bytes(4096)
        return whole

    async def _other(self) -> int:
        """Start the machine of another qube; returns its pid."""
        uid = None if self.uid is None else OTHER_UID
        program = qemu("-sandbox", SANDBOX)
        jail = JailSpec(kind=JailKind.MACHINE, program=program, descriptors=(RAM,), uid=uid)
        ram = memory(sealed=True)
        try:
            spawned = await self.keeper.client.spawn("other", jail, [ram])
        finally:
            os.close(ram)
        os.close(spawned.pidfd)
        return spawned.pid

    async def _once(self, other: int, disk: Path, before: Report) -> Report:
        ours, theirs = os.pipe()
        with ExitStack() as closing:
            closing.callback(os.close, ours)
            given = [theirs, memory(sealed=True)]
            given += [os.open(path, os.O_RDONLY) for path in (disk, self.world.preloaded)]
            given += [listening()]
            try:
                known = described(given)
                spawned = await self.keeper.client.spawn("probe", self._jail(other, before), given)
                closing.callback(os.close, spawned.pidfd)
                ram = os.dup(given[1])
                closing.callback(os.close, ram)
            finally:
                for descriptor in given:
                    os.close(descriptor)
            report = await asyncio.to_thread(read_report, ours)
            if report.done:
                await self._assert_jailed(known)
            if report.done or report.gone:
                await self.keeper.client.kill("probe")
            status = await self.keeper.exit_of("probe")
            if not report.done:
                assert report.pending is not None, "it ended between two tries"
                killed = report.gone or status == BAD_CALL
                how = "killed" if killed else f"reached {status}"
                report.outcomes[report.pending] = how
            assert os.pread(ram, 2 * RAM_SIZE, 0) == bytes(RAM_SIZE)
        return report

    def _jail(self, other: int, before: Report) -> JailSpec:
        words = ["-chardev", f"socket,id=q,fd={QMP},server=on,wait=off", "-mon", "chardev=q"]
        if self.sandbox:
            words += ["-sandbox", SANDBOX]
        return JailSpec(
            kind=JailKind.MACHINE,
            program=qemu(*words),
            descriptors=NUMBERS,
            uid=self.uid,
            environment={
                **self.world.variables(other),
                "PROBE_FILTERS": "2" if self.sandbox else "1",
                "PROBE_SKIP": "\n".join(before.outcomes),
            },
        )

    async def _assert_jailed(self, known: frozenset[str]) -> None:
        uid = self.uid
        if uid is None and self.owner != os.geteuid():
            uid = self.owner
        wanted = Requirements(uid=uid, seccomp=self.sandbox, given=known)
        assert_jailed(await self.keeper.client.verify("probe"), wanted)


def outside(world: World) -> Report:
    """The probe as an unprivileged user outside of any jail."""
    replaced = ("execve", "execveat")
    report = _unjailed(world, qemu(), UID, _told(world, PROBE_SKIP=replaced))
    for name in replaced:
        alone = _unjailed(world, qemu(), UID, _told(world, PROBE_ONLY=(name,)))
        report.outcomes |= alone.outcomes
    return report


def on_host(world: World, only: Sequence[str]) -> Report:
    """Some of its tries as the user who runs the tests."""
    return _unjailed(world, qemu(), None, _told(world, PROBE_ONLY=only))


def without_walls(world: World, only: Sequence[str]) -> Report:
    """Some of its tries in a jail without filter, with capabilities, and with writable mounts."""
    told = _told(world, PROBE_ONLY=only)
    spec = JailSpec(kind=JailKind.MACHINE, program=qemu(), environment=told)
    argv = bwrap_argv(spec, 98, 99)
    for option in ("--info-fd", "--seccomp", "--cap-drop", "--remount-ro"):
        argv = without_option(argv, option, 1)
    argv = without_option(argv, "--disable-userns", 0)
    root = ["--uid", "0", "--gid", "0", "--cap-add", "ALL", "--die-with-parent"]
    return _unjailed(world, [argv[0], *root, *argv[1:]], UID, {})


def _told(world: World, **names: Sequence[str]) -> dict[str, str]:
    lists = {variable: "\n".join(listed) for variable, listed in names.items()}
    return {**world.variables(world.victim), "PROBE_FILTERS": "0", **lists}


def without_option(argv: Sequence[str], option: str, values: int) -> list[str]:
    """argv without any occurrence of an option and its values."""
    kept, skipped = [], 0
    for word in argv:
        if word == option:
            skipped = 1 + values
        if skipped:
            skipped -= 1
        else:
            kept.append(word)
    return kept


def _unjailed(
    world: World, argv: Sequence[str], uid: int | None, environment: dict[str, str]
) -> Report:
    ours, theirs = os.pipe()
    disk = os.open(world.file_of(os.geteuid() if uid is None else uid), os.O_RDWR)
    given = [theirs, memory(sealed=False), disk, os.open(world.preloaded, os.O_RDONLY), listening()]
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 200) for descriptor in given]

    def place() -> None:
        for descriptor, number in zip((*high, high[0]), (*NUMBERS, BEYOND), strict=True):
            os.dup2(descriptor, number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    try:
        process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            close_fds=False,
            preexec_fn=place,  # noqa: PLW1509 - no other thread runs
            **as_user(uid),
        )
    finally:
        for descriptor in (*given, *high):
            os.close(descriptor)
    with process:
        try:
            report = read_report(ours)
            if report.pending is not None:
                said, _ = process.communicate(timeout=TIMEOUT)
                assert b"QEMU emulator version" in said, said
                report.outcomes[report.pending] = "reached another program"
            else:
                assert report.done, process.communicate(timeout=TIMEOUT)[0]
        finally:
            process.kill()
            os.close(ours)
    return report


def listening() -> int:
    """A socket as a QEMU holds for its monitor."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen(1)
    return listener.detach()


def read_report(descriptor: int) -> Report:
    """Take what the probe says until it is done or gone."""
    report, text = Report(), b""
    deadline = time.monotonic() + TIMEOUT
    while not (report.done or report.gone):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"the probe is not done: {report}"
        data = os.read(descriptor, 65_536)
        if not data:
            break
        *lines, text = (text + data).split(b"\n")
        for line in lines:
            report.take(line.decode())
    return report
