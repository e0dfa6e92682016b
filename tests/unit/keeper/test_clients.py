"""What one client does, or fails to do, costs the others nothing."""

import array
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from insula.keeper.client import KeeperClient, KeeperError, start_keeper
from insula.keeper.clients import MAX_UNSENT, Client
from insula.keeper.loop import Loop
from insula.keeper.server import MAX_CLIENTS
from insula.protocol.keeper import MAX_DESCRIPTORS, MAX_RECORD
from tests.keeping import SLEEPER, TIMEOUT, Keeping

HELLO = b'{"id": 1, "op": "hello"}'


@pytest.fixture
def raw(keeper: Keeping) -> Iterator[socket.socket]:
    """A connection on which a test may misbehave."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(keeper.path))
        connection.settimeout(TIMEOUT)
        yield connection


async def is_closed(connection: socket.socket) -> bool:
    """Whether the keeper lets go of a connection."""

    def received() -> bytes:
        with suppress(ConnectionResetError):
            return connection.recv(MAX_RECORD)
        return b""

    return await asyncio.to_thread(received) == b""


async def reads_end(descriptor: int) -> bool:
    """Whether nobody has the writing end of a pipe any more."""
    async with asyncio.timeout(TIMEOUT):
        return await asyncio.to_thread(os.read, descriptor, 1) == b""


@pytest.mark.parametrize(
    "record",
    [
        b"x",
        b"[]",
        b'{"op": "hello"}',
        b'{"id": 1, "op": "boast"}',
        b'{"id": 1, "op": "kill"}',
        b'{"id": 1, "op": "kill", "name": "a\\u0000"}',
        b'{"id": 1, "op": "hold", "name": "without a descriptor"}',
        b'{"id": 1, "op": "spawn", "name": "q", "jail": {}}',
        b"[" * MAX_RECORD,
        b" " * (MAX_RECORD + 1),
    ],
)
async def test_a_record_that_is_no_request_ends_its_connection(
    keeper: Keeping, raw: socket.socket, record: bytes
) -> None:
    raw.send(record)
    assert await is_closed(raw)
    assert (await keeper.client.hello())["pid"] == keeper.pid


@pytest.mark.parametrize("record", [b"x", HELLO, b'{"id": 1, "op": "take", "name": "none"}'])
async def test_descriptors_that_nobody_asked_for_are_closed(
    raw: socket.socket, record: bytes
) -> None:
    ours, theirs = os.pipe()
    for many in (1, MAX_DESCRIPTORS):
        ancillary = array.array("i", [theirs] * many)
        with suppress(BrokenPipeError):
            raw.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ancillary)])
    os.close(theirs)
    assert await reads_end(ours)
    os.close(ours)


async def test_more_descriptors_than_a_record_may_bring_are_closed(raw: socket.socket) -> None:
    ours, theirs = os.pipe()
    ancillary = array.array("i", [theirs] * (MAX_DESCRIPTORS + 10))
    raw.sendmsg([HELLO], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ancillary)])
    os.close(theirs)
    assert await reads_end(ours)
    os.close(ours)
    assert await is_closed(raw)


async def test_a_client_that_floods_and_takes_nothing_is_paused(
    keeper: Keeping, raw: socket.socket
) -> None:
    raw.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while sent < 100_000:
            raw.send(HELLO)
            sent += 1
    assert sent < 100_000
    for _ in range(20):
        await keeper.client.hello()
    raw.setblocking(True)
    raw.settimeout(TIMEOUT)
    answers = await asyncio.to_thread(lambda: [raw.recv(MAX_RECORD) for _ in range(sent)])
    assert {json.loads(answer)["pid"] for answer in answers} == {keeper.pid}


async def test_a_client_that_vanishes_in_the_middle_is_no_loss(
    keeper: Keeping, raw: socket.socket
) -> None:
    raw.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            raw.send(HELLO)
    raw.close()
    assert (await keeper.client.hello())["pid"] == keeper.pid


async def test_a_start_whose_client_vanishes_is_undone(keeper: Keeping, raw: socket.socket) -> None:
    spawn = {"id": 1, "op": "spawn", "name": "q", "jail": SLEEPER.to_json()}
    raw.send(json.dumps(spawn).encode())
    raw.close()
    assert await keeper.exit_of("q") != 0
    assert keeper.children() == set()
    os.close((await keeper.client.spawn("q", SLEEPER, [])).pidfd)


async def test_what_was_meant_for_a_client_goes_with_it(
    keeper: Keeping, raw: socket.socket
) -> None:
    ours, theirs = os.pipe()
    await keeper.client.hold("end", theirs)
    raw.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            raw.send(b'{"id": 2, "op": "take", "name": "end"}')
    os.close(theirs)
    await keeper.client.drop("end")
    raw.close()
    assert await reads_end(ours)
    os.close(ours)


def test_a_watcher_that_takes_nothing_is_let_go_of() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left: list[Client] = []
    client = Client(Loop(), theirs, lambda *_: None, left.append)
    with ours:
        told = 0
        while client.open:
            client.send({"event": "exit", "name": "q", "status": 0})
            told += 1
            assert told < 10_000
    assert told > MAX_UNSENT
    assert left == [client]
    client.send({"event": "exit", "name": "q", "status": 0})


async def test_connections_beyond_the_limit_are_refused_until_some_go(keeper: Keeping) -> None:
    clients = []
    for _ in range(MAX_CLIENTS - 1):
        clients.append(await KeeperClient.connect(keeper.path))
        await clients[-1].hello()
    one_more = await KeeperClient.connect(keeper.path)
    with pytest.raises(KeeperError):
        await one_more.hello()
    await one_more.close()
    for client in clients:
        await client.close()
    await keeper.client.hello()
    again = await KeeperClient.connect(keeper.path)
    assert (await again.hello())["pid"] == keeper.pid
    await again.close()


async def test_processes_and_descriptors_outlive_a_killed_client(keeper: Keeping) -> None:
    code = """
import asyncio, os, signal, sys
from pathlib import Path
from insula.keeper.client import KeeperClient
from tests.keeping import SLEEPER

async def main():
    client = await KeeperClient.connect(Path(sys.argv[1]))
    held = os.memfd_create("held")
    os.write(held, b"kept")
    await client.hold("memory", held)
    await client.spawn("q", SLEEPER, [])
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, str(keeper.path)],
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert (await keeper.client.list())["q"].exit is None
    taken = await keeper.client.take("memory")
    assert os.pread(taken, 10, 0) == b"kept"
    os.close(taken)
    assert (await keeper.client.verify("q")).seccomp_filters == 1


async def test_a_lost_keeper_is_told_and_fails_what_waits(keeper: Keeping) -> None:
    lost = asyncio.Event()
    other = await KeeperClient.connect(keeper.path)
    await other.hello()
    other.on_lost = lost.set
    os.close((await keeper.client.spawn("q", SLEEPER, [])).pidfd)
    await keeper.client.kill("q")
    await keeper.exit_of("q")
    await keeper.client.stop()
    async with asyncio.timeout(TIMEOUT):
        await lost.wait()
    with pytest.raises(KeeperError):
        await other.hello()
    start_keeper(keeper.path, keeper.path.with_suffix(".log"))
