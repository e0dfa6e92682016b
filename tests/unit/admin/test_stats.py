"""admin.vm.Stats: a stream of what running qubes use (admin-api.md section 4.12)."""

import asyncio
import time

from insula.daemon.admin.server import SOCKET_NAME
from insula.protocol import admin
from insula.protocol.admin import Event, Refusal
from tests.serving import TIMEOUT, Instance


class Stats:
    """One stream, record by record."""

    def __init__(self, instance: Instance, destination: str) -> None:
        self._instance = instance
        self._destination = destination
        self._received = bytearray()

    async def __aenter__(self) -> "Stats":
        path = self._instance.run / SOCKET_NAME
        self._reader, self._writer = await asyncio.open_unix_connection(path)
        self._writer.write(admin.encode_request("admin.vm.Stats", "", self._destination))
        self._writer.write_eof()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def next(self) -> Event | Refusal | None:
        """The next record; None at the end."""
        async with asyncio.timeout(TIMEOUT):
            while (found := admin.take_event(self._received)) is None:
                data = await self._reader.read(65536)
                if not data:
                    return None
                self._received += data
        return found


async def test_running_qubes_are_told_of_in_rounds(instance: Instance) -> None:
    await instance.ok("admin.property.Set", "dom0", "stats_interval", b"1")
    await instance.power.start(instance.system.named("work"))
    async with Stats(instance, "dom0") as stats:
        first = await stats.next()
        assert isinstance(first, Event)
        assert (first.subject, first.name) == ("", "connection-established")
        for _ in range(2):
            for qube in ("work", "dom0"):
                told = await stats.next()
                assert isinstance(told, Event)
                assert (told.subject, told.name) == (qube, "vm-stats")
                assert list(told.fields) == ["memory_kb", "cpu_time", "cpu_usage", "cpu_usage_raw"]
                assert int(told.fields["memory_kb"]) > 0
                assert int(told.fields["cpu_usage"]) <= int(told.fields["cpu_usage_raw"])


async def test_rounds_without_a_pause_are_few_all_the_same(instance: Instance) -> None:
    await instance.power.start(instance.system.named("work"))
    await instance.ok("admin.property.Set", "dom0", "stats_interval", b"0")
    async with Stats(instance, "dom0") as stats:
        rounds = [await stats.next() for _ in range(5)]
        begun = time.monotonic()
        rounds += [await stats.next() for _ in range(6)]
        assert time.monotonic() - begun > 0.2
        assert {one.name for one in rounds[1:] if isinstance(one, Event)} == {"vm-stats"}


async def test_one_that_does_not_run_ends_its_stream(instance: Instance) -> None:
    async with Stats(instance, "work") as stats:
        first = await stats.next()
        assert isinstance(first, Event)
        assert first.name == "connection-established"
        refused = await stats.next()
        assert isinstance(refused, Refusal)
        assert refused.kind == "QubesVMNotRunningError"
        assert await stats.next() is None


async def test_one_that_ends_ends_its_stream(instance: Instance) -> None:
    await instance.ok("admin.property.Set", "dom0", "stats_interval", b"1")
    work = instance.system.named("work")
    await instance.power.start(work)
    async with Stats(instance, "work") as stats:
        assert isinstance(await stats.next(), Event)
        told = await stats.next()
        assert isinstance(told, Event)
        assert told.name == "vm-stats"
        await instance.power.kill(work)
        while isinstance(told := await stats.next(), Event):
            assert told.name == "vm-stats"
        assert isinstance(told, Refusal)


async def test_neither_argument_nor_payload_is_taken(instance: Instance) -> None:
    assert await instance.refused("admin.vm.Stats", "dom0", "x") is None
    assert await instance.refused("admin.vm.Stats", "dom0", "", b"x") is None
