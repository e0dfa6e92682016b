"""What every engine's machines have to do, whichever they are: the tests of each take these over.

Without a daemon: an engine, storage and a snapshot, and the lifecycle's own functions.
"""

import asyncio
import hashlib
import os
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from insula.daemon.engine.interface import Engine, EngineError, RunState
from insula.daemon.lifecycle.running import (
    Order,
    RunningQube,
    bring_up,
    end,
    machine_name,
    take_over,
)
from insula.daemon.model.machine import Disk, Layer
from insula.daemon.rpc.calls import Calls, DataConnection
from insula.daemon.storage import qcow2
from insula.daemon.storage.volumes import Storage
from insula.protocol import qrexec
from insula.protocol.frames import frame, take_raw_frame
from insula.protocol.qrexec import MessageType
from insula.protocol.resync import MarkerFinder

TIMEOUT = 60.0  # seconds for anything that a test waits for
END = frame(MessageType.DATA_STDIN)
_DISK_SIZE = 16 << 20


class Ground(ABC):
    """Where machines run: what they need of an instance."""

    engine: Engine
    storage: Storage
    run: Path
    user: str  # whom an agent lets run commands

    @abstractmethod
    def order(self, name: str) -> Order:
        """An order for a clone that is thrown away."""

    @asynccontextmanager
    async def qube(self, order: Order | None = None) -> AsyncIterator[RunningQube]:
        """A running qube, ended with the block if it has not been."""
        order = order or self.order("qube")
        qube = await bring_up(order, 1, self.engine, self.storage, self.run)
        try:
            yield qube
        finally:
            await self.gone(qube)

    async def gone(self, qube: RunningQube) -> None:
        """End a qube, and have nothing of it left."""
        await qube.let_go()
        await self.engine.release(machine_name(qube.uuid))

    async def adopt(self, uuid: UUID) -> RunningQube | None:
        """Take a qube over, as the next daemon does."""
        return await take_over(
            uuid, "qube", xid=1, started=0.0, may_be_paused=True, engine=self.engine, run=self.run
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A call's outcome."""

    code: int
    out: bytes
    err: bytes


class Caller:
    """Our end of a call, which says what it wants and takes what comes, frame by frame."""

    def __init__(self, calls: Calls, connection: DataConnection) -> None:
        self._calls = calls
        self._connection = connection
        self._socket = socket.socket(fileno=connection.end)
        self._socket.setblocking(False)
        self._finder = MarkerFinder(connection.nonce)
        self._received = bytearray()

    @classmethod
    @asynccontextmanager
    async def of(cls, qube: RunningQube, command: str, user: str) -> AsyncIterator["Caller"]:
        """A call of a shell command."""
        text = f"{user}:nogui:{command}"
        connection = await qube.calls.open(MessageType.EXEC_CMDLINE, text)
        caller = cls(qube.calls, connection)
        try:
            await caller.send(connection.nonce + qrexec.hello())
            yield caller
        finally:
            caller._socket.close()
            with suppress(KeyError):  # The next daemon looks after it.
                qube.calls.caller_over(connection)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(TIMEOUT):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def give(self, data: bytes) -> None:
        """Send input."""
        for start in range(0, len(data), qrexec.MAX_CHUNK):
            await self.send(frame(MessageType.DATA_STDIN, data[start : start + qrexec.MAX_CHUNK]))

    async def message(self) -> tuple[int, bytes]:
        """The next message.

        Raises:
            EOFError: the connection ended.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT):
            while (raw := take_raw_frame(self._received, qrexec.MAX_CHUNK)) is None:
                data = await loop.sock_recv(self._socket, 262_144)
                if not data:
                    raise EOFError
                self._received += self._finder.feed(data)
        return raw.type, raw.body

    async def answer(self) -> Answer:
        """All that is still to come, until the exit code."""
        output = {MessageType.DATA_STDOUT: bytearray(), MessageType.DATA_STDERR: bytearray()}
        while True:
            kind, body = await self.message()
            if kind == MessageType.DATA_EXIT_CODE:
                out, err = (bytes(one) for one in output.values())
                return Answer(qrexec.read_exit_code(body), out, err)
            if kind != MessageType.HELLO:
                output[MessageType(kind)] += body


async def run(qube: RunningQube, command: str, user: str, given: bytes = b"") -> Answer:
    """A call to its end."""
    async with Caller.of(qube, command, user) as caller:
        giving = asyncio.create_task(caller.give(given))
        try:
            await asyncio.sleep(0)
            ending = asyncio.create_task(_end_input(caller, giving))
            try:
                return await caller.answer()
            finally:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
        finally:
            giving.cancel()
            await asyncio.gather(giving, return_exceptions=True)


async def _end_input(caller: Caller, giving: "asyncio.Task[None]") -> None:
    await giving
    await caller.send(END)


@asynccontextmanager
async def spare_disk(folder: Path, serial: str) -> AsyncIterator[Disk]:
    """An open disk for a running machine, its file in folder."""
    path = folder / f"{serial}.qcow2"
    with path.open("xb") as image:
        qcow2.write_blank(image.fileno(), _DISK_SIZE)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        layer = Layer(path, "qcow2", writable=True, fd=descriptor)
        yield Disk(serial, (layer,), False, _DISK_SIZE)
    finally:
        os.close(descriptor)


class Machines:
    """Tests of any engine; each takes these over in a class of its own, with a ground."""

    async def test_a_qube_answers_with_streams_and_code(self, ground: Ground) -> None:
        async with ground.qube() as qube:
            command = "cat; echo no >&2; exit 7"
            assert await run(qube, command, ground.user, b"in") == Answer(7, b"in", b"no\n")

    async def test_the_end_of_input_is_no_end_of_output(self, ground: Ground) -> None:
        async with (
            ground.qube() as qube,
            Caller.of(qube, "cat >/dev/null; echo later; read x || echo over", ground.user) as call,
        ):
            await call.give(b"all of it")
            await call.send(END)
            assert await call.answer() == Answer(0, b"later\nover\n", b"")

    async def test_a_closed_output_leaves_input_open(self, ground: Ground) -> None:
        async with (
            ground.qube() as qube,
            Caller.of(qube, "exec >&-; cat >&2", ground.user) as call,
        ):
            while (await call.message()) != (MessageType.DATA_STDOUT, b""):
                continue
            await call.give(b"late")
            await call.send(END)
            assert await call.answer() == Answer(0, b"", b"late")

    async def test_what_goes_both_ways_comes_back_whole(self, ground: Ground) -> None:
        given = os.urandom(12 << 20)
        async with ground.qube() as qube:
            answer = await run(qube, "cat", ground.user, given)
        assert (answer.code, answer.err) == (0, b"")
        assert hashlib.sha256(answer.out).digest() == hashlib.sha256(given).digest()

    async def test_a_hundred_calls_at_once_each_get_their_own_answer(self, ground: Ground) -> None:
        async with ground.qube() as qube:
            calls = (run(qube, f"echo {n}; exit {n % 5}", ground.user) for n in range(100))
            answers = await asyncio.gather(*calls)
        assert answers == [Answer(n % 5, f"{n}\n".encode(), b"") for n in range(100)]

    async def test_a_port_serves_one_call_after_the_other(self, ground: Ground) -> None:
        """Each is left with data on its way, which the next one on that port must not see."""
        async with ground.qube() as qube:
            for number in range(8):
                async with Caller.of(qube, "yes stale", ground.user) as call:
                    while (await call.message())[0] != MessageType.DATA_STDOUT:
                        continue
                answer = await run(qube, f"echo {number}", ground.user)
                assert answer == Answer(0, f"{number}\n".encode(), b"")

    async def test_a_caller_that_is_gone_costs_others_nothing(self, ground: Ground) -> None:
        async with ground.qube() as qube:
            for _ in range(30):  # More than there are ports.
                async with Caller.of(qube, "cat", ground.user):
                    pass
            assert (await run(qube, "echo on", ground.user)).out == b"on\n"

    async def test_a_pause_stops_it_and_a_call_waits_through_it(self, ground: Ground) -> None:
        async with (
            ground.qube() as qube,
            Caller.of(qube, "cat", ground.user) as call,
        ):
            await call.give(b"before")
            while (await call.message()) != (MessageType.DATA_STDOUT, b"before"):
                continue
            await qube.pause()
            assert await qube.machine.state() is RunState.PAUSED
            await call.give(b"while")
            await call.send(END)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await call.message()
            await qube.unpause()
            assert await qube.machine.state() is RunState.RUNNING
            assert await call.answer() == Answer(0, b"while", b"")

    async def test_it_ends_when_it_is_asked_to(self, ground: Ground) -> None:
        async with ground.qube() as qube:
            gone = asyncio.Event()
            qube.machine.on_gone(gone.set)
            assert await end(qube, TIMEOUT)
            assert gone.is_set()
            assert await qube.machine.state() is RunState.GONE

    async def test_an_end_that_nobody_asked_for_is_noticed(self, ground: Ground) -> None:
        async with ground.qube() as qube:
            gone = asyncio.Event()
            qube.machine.on_gone(gone.set)
            os.kill(qube.machine.pid, signal.SIGKILL)
            async with asyncio.timeout(TIMEOUT):
                await qube.machine.wait_gone()
            assert gone.is_set()
            late = asyncio.Event()
            qube.machine.on_gone(late.set)
            assert late.is_set(), "who asks afterwards is told at once"

    async def test_nothing_is_left_of_it(self, ground: Ground) -> None:
        before = await ground.engine.machines()
        async with ground.qube() as qube:
            assert machine_name(qube.uuid) in await ground.engine.machines()
        assert await ground.engine.machines() == before
        assert await ground.adopt(qube.uuid) is None

    async def test_the_next_daemon_finds_it_with_its_calls(self, ground: Ground) -> None:
        async with (
            ground.qube() as qube,
            Caller.of(qube, "cat", ground.user) as call,
        ):
            await call.give(b"before")
            while (await call.message()) != (MessageType.DATA_STDOUT, b"before"):
                continue
            await qube.let_go()
            adopted = await ground.adopt(qube.uuid)
            assert adopted is not None
            try:
                assert (await run(adopted, "echo new", ground.user)).out == b"new\n"
                await call.give(b"after")
                await call.send(END)
                assert await call.answer() == Answer(0, b"after", b"")
            finally:
                await adopted.let_go()

    async def test_nobody_is_adopted_who_never_was(self, ground: Ground) -> None:
        assert await ground.adopt(uuid4()) is None

    async def test_disks_are_plugged_in_once_and_taken_away_once(
        self, ground: Ground, tmp_path: Path
    ) -> None:
        async with ground.qube() as qube, spare_disk(tmp_path, "extra") as disk:
            for _ in range(2):  # What was taken away can come again.
                await qube.machine.plug(disk)
                with pytest.raises(EngineError):
                    await qube.machine.plug(disk)
                await qube.machine.unplug("extra")
                with pytest.raises(EngineError):
                    await qube.machine.unplug("extra")

    async def test_it_can_be_given_more_memory(self, ground: Ground) -> None:
        async with ground.qube() as qube:
            for memory in (64 << 20, 256 << 20):
                await qube.machine.grow(memory)
            assert (await run(qube, "echo on", ground.user)).out == b"on\n"
