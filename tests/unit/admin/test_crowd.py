"""Five hundred callers at once on all sockets, and nothing of them is left."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from insula.daemon.admin import server
from insula.daemon.admin.dispatch import SOCKETS
from tests.serving import TIMEOUT, Instance

CALLERS = 500
REQUESTS = {
    "qubesd.sock": b"admin.vm.List dom0 name dom0\0",
    "qubesd.internal.sock": b"internal.GetSystemInfo dom0 name dom0\0",
    "qubesd.misc.sock": b"qubes.Nothing dom0 name dom0\0",
}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def _quiet(descriptors: int, tasks: int) -> None:
    """Wait until there are no more of either than before."""
    async with asyncio.timeout(TIMEOUT):
        while _descriptors() > descriptors or len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.005)


async def _connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect; asyncio takes a listener whose queue is full for one that has accepted."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    while True:
        try:
            connection.connect(str(path))
        except BlockingIOError:
            await asyncio.sleep(0)
        else:
            return await asyncio.open_unix_connection(sock=connection)


async def _whole(path: Path, request: bytes) -> bytes:
    reader, writer = await _connected(path)
    writer.write(request)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def _half(path: Path, request: bytes, length: int) -> bytes:
    """Send a part of a request and be gone."""
    _, writer = await _connected(path)
    writer.write(request[:length])
    writer.close()
    return b""


async def _gone(path: Path, request: bytes, length: int) -> bytes:
    """Be gone when the answer has begun."""
    reader, writer = await _connected(path)
    writer.write(request)
    writer.write_eof()
    await reader.read(length)
    writer.transport.abort()
    return b""


@pytest.mark.parametrize("name", SOCKETS)
async def test_five_hundred_callers_are_answered_each(instance: Instance, name: str) -> None:
    path, request = instance.run / name, REQUESTS[name]
    expected = await _whole(path, request)
    descriptors, tasks = _descriptors(), len(asyncio.all_tasks())
    async with asyncio.timeout(TIMEOUT):
        answers = await asyncio.gather(*(_whole(path, request) for _ in range(CALLERS)))
    assert answers == [expected] * CALLERS
    await _quiet(descriptors, tasks)


async def test_callers_that_break_off_leave_nothing_and_others_are_answered(
    instance: Instance,
) -> None:
    work = instance.system.named("work")
    work.features.update((f"{number:04}" + "x" * 200, "") for number in range(5000))
    long = b"admin.vm.feature.List dom0 name work\0"  # A megabyte, more than a socket holds.
    expected = await _whole(instance.run / "qubesd.sock", long)
    descriptors, tasks = _descriptors(), len(asyncio.all_tasks())
    callers = []
    for number in range(CALLERS):
        name = list(SOCKETS)[number % len(SOCKETS)]
        path, request = instance.run / name, REQUESTS[name]
        match number % 5:
            case 0:
                callers.append(_half(path, request, number % len(request)))
            case 1:
                callers.append(_half(path, request + b"x" * 70_000, 70_000))
            case 2:
                callers.append(_gone(instance.run / "qubesd.sock", long, number))
            case 3:
                callers.append(_gone(path, request, 0))
            case _:
                callers.append(_whole(instance.run / "qubesd.sock", long))
    async with asyncio.timeout(TIMEOUT):
        answers = await asyncio.gather(*callers, return_exceptions=True)
    broken = [one for one in answers if not isinstance(one, (bytes, ConnectionError))]
    assert broken == []
    assert answers[4::5] == [expected] * (CALLERS // 5)
    await _quiet(descriptors, tasks)
    assert await instance.ok("admin.vm.List")


async def test_five_hundred_callers_that_say_nothing_are_let_go_of(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT", 0.2)
    descriptors, tasks = _descriptors(), len(asyncio.all_tasks())
    silent = []
    for number in range(CALLERS):
        name = list(SOCKETS)[number % len(SOCKETS)]
        silent.append(await _connected(instance.run / name))
        silent[-1][1].write(REQUESTS[name][: number % 20])
    async with asyncio.timeout(TIMEOUT):
        ends = await asyncio.gather(*(reader.read() for reader, _ in silent))
    assert ends == [b""] * CALLERS
    for _, writer in silent:
        writer.close()
    await _quiet(descriptors, tasks)
