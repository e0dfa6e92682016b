"""Callers of all sorts: none of them harms the others, and nothing of them is left."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from insula.daemon.admin import events as streams
from insula.daemon.admin import server
from insula.daemon.admin.server import SOCKET_NAME, AdminServer
from insula.daemon.admin.sockets import AddressInUseError
from insula.daemon.model.qube import PowerState
from insula.protocol import admin
from insula.protocol.admin import Event, take_event
from tests.serving import TIMEOUT, Instance

LIST = b"admin.vm.List dom0 name dom0\0"
EVENTS = b"admin.Events dom0 name %s\0"
FIRST = b"1\0\0connection-established\0\0"


@asynccontextmanager
async def connected(
    instance: Instance, sent: bytes = b"", *, end: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(instance.run / SOCKET_NAME)
    try:
        writer.write(sent)
        await writer.drain()
        if end:
            writer.write_eof()
        yield reader, writer
    finally:
        writer.close()


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)


def _listeners(instance: Instance) -> int:
    return len(instance.world.events._listeners)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def test_nothing_is_done_before_the_end_of_a_request(instance: Instance) -> None:
    async with connected(instance, b"admin.vm.Remove dom0 name work\0") as (reader, writer):
        await instance.ok("admin.vm.List")
        assert instance.system.has_name("work")
        writer.write_eof()
        assert await reader.read() == b"0\0"
    assert not instance.system.has_name("work")


async def test_a_request_that_does_not_end_is_given_up(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT", 0.1)
    async with connected(instance, LIST) as (reader, _):
        async with asyncio.timeout(TIMEOUT):
            assert await reader.read() == b""


async def test_two_hundred_idle_callers_keep_nobody_from_being_served(instance: Instance) -> None:
    before = _descriptors()
    idle = [await asyncio.open_unix_connection(instance.run / SOCKET_NAME) for _ in range(200)]
    for _, writer in idle[::2]:
        writer.write(b"admin.vm.Li")
    assert await instance.ok("admin.vm.List")
    for _, writer in idle:
        writer.close()
    await _until(lambda: _descriptors() <= before)


async def test_a_caller_that_vanishes_does_not_interrupt_what_it_asked_for(
    instance: Instance,
) -> None:
    async with connected(instance, b"admin.vm.Start dom0 name work\0", end=True):
        work = instance.system.named("work")
        await _until(lambda: work.power is PowerState.TRANSIENT)
    await _until(lambda: work.power is PowerState.RUNNING)


async def test_an_answer_that_is_not_read_is_given_up(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_TIMEOUT", 0.1)
    work = instance.system.named("work")
    work.features.update((f"x{number}", "x" * 1000) for number in range(1000))
    for name in range(1000):
        work.features["y" * 1000 + str(name)] = ""
    before = _descriptors()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(instance.run / SOCKET_NAME))
        caller.sendall(b"admin.vm.feature.List dom0 name work\0")
        caller.shutdown(socket.SHUT_WR)
        await _until(lambda: _descriptors() == before + 1)
    assert await instance.ok("admin.vm.List")


async def test_events_begin_with_the_connection(instance: Instance) -> None:
    async with connected(instance, EVENTS % b"dom0", end=True) as (reader, _):
        assert await reader.readexactly(len(FIRST)) == FIRST
        await instance.ok("admin.vm.tag.Set", "work", "mine")
        expected = admin.event("work", "domain-tag-add:mine", {"tag": "mine"})
        assert await reader.readexactly(len(expected)) == expected
        assert expected == b"1\0work\0domain-tag-add:mine\0tag\0mine\0\0"


async def test_a_qubes_events_are_those_about_it(instance: Instance) -> None:
    await instance.qube("other")
    async with connected(instance, EVENTS % b"work", end=True) as (reader, _):
        await reader.readexactly(len(FIRST))
        await instance.ok("admin.vm.tag.Set", "other", "mine")
        await instance.ok("admin.property.Set", "dom0", "stats_interval", b"5")
        await instance.ok("admin.vm.tag.Set", "work", "last")
        received = bytearray(await reader.read(1000))
        event = take_event(received)
        assert isinstance(event, Event)
        assert event.name == "domain-tag-add:last"
        assert received == b""


async def test_a_qube_hears_of_nothing_without_a_policy(instance: Instance) -> None:
    async with connected(instance, b"admin.Events work name dom0\0", end=True) as (reader, _):
        assert await reader.readexactly(len(FIRST)) == FIRST
        await instance.ok("admin.vm.tag.Set", "work", "mine")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(1)


@pytest.mark.parametrize(
    "request_",
    [b"admin.Events+x dom0 name dom0\0", b"admin.Events dom0 name dom0\0x"],
)
async def test_streams_take_neither_argument_nor_payload(
    instance: Instance, request_: bytes
) -> None:
    assert await instance.raw(request_) == b""


async def test_a_stream_of_an_unknown_qube_is_refused(instance: Instance) -> None:
    assert (await instance.raw(EVENTS % b"nobody")).startswith(b"2\0QubesVMNotFoundError\0")


async def test_values_that_are_not_ascii_do_not_break_a_stream(instance: Instance) -> None:
    async with connected(instance, EVENTS % b"dom0", end=True) as (reader, _):
        await reader.readexactly(len(FIRST))
        instance.world.events.tell(None, "odd", text="naïve\0")
        expected = b"1\0\0odd\0text\0na?ve?\0\0"
        assert await reader.readexactly(len(expected)) == expected


async def test_a_listener_that_goes_away_is_forgotten_though_nothing_happens(
    instance: Instance,
) -> None:
    before, descriptors = _listeners(instance), _descriptors()
    async with connected(instance, EVENTS % b"dom0", end=True) as (reader, _):
        await reader.readexactly(len(FIRST))
        assert _listeners(instance) == before + 1
    await _until(lambda: _listeners(instance) == before)
    await _until(lambda: _descriptors() == descriptors)


async def test_a_listener_that_does_not_read_is_let_go_of_and_others_go_on(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_UNREAD", 1 << 20)
    before = _listeners(instance)
    async with (
        connected(instance, EVENTS % b"dom0", end=True) as (good, _),
    ):
        await good.readexactly(len(FIRST))
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(instance.run / SOCKET_NAME))
            deaf.sendall(EVENTS % b"dom0")
            deaf.shutdown(socket.SHUT_WR)
            await _until(lambda: _listeners(instance) == before + 2)
            heard = 0
            while _listeners(instance) > before + 1:
                instance.world.events.tell(None, "noise", text="x" * 10_000)
                record = admin.event("", "noise", {"text": "x" * 10_000})
                assert await good.readexactly(len(record)) == record
                heard += 1
        assert heard > 100
        instance.world.events.tell(None, "last")
        assert await good.readexactly(9) == b"1\0\0last\0\0"


async def test_a_second_server_is_refused_and_the_first_goes_on(instance: Instance) -> None:
    with pytest.raises(AddressInUseError, match=SOCKET_NAME) as refusal:
        await AdminServer(instance.run, instance.api).start()
    assert "INSULA_RUN" in (refusal.value.hint or "")
    assert await instance.ok("admin.vm.List")


async def test_a_socket_left_behind_is_replaced(instance: Instance) -> None:
    run = instance.run / "second"
    run.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run / SOCKET_NAME))
        left.listen()
    other = AdminServer(run, instance.api)
    await other.start()
    try:
        assert (run / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(run / SOCKET_NAME)
        writer.close()
        assert await reader.read() == b""
    finally:
        await other.close()
    assert not (run / SOCKET_NAME).exists()


async def test_a_closing_server_lets_go_of_everybody(instance: Instance) -> None:
    run = instance.run / "second"
    run.mkdir()
    other = AdminServer(run, instance.api)
    await other.start()
    before = _listeners(instance)
    callers = [await asyncio.open_unix_connection(run / SOCKET_NAME) for _ in range(3)]
    callers[1][1].write(LIST)
    callers[2][1].write(EVENTS % b"dom0")
    callers[2][1].write_eof()
    await _until(lambda: _listeners(instance) == before + 1)
    await other.close()
    for reader, writer in callers:
        assert await reader.read() in (b"", FIRST)
        writer.close()
    assert _listeners(instance) == before
