"""Ways out of net qubes: opened at their start, again when lost, gone with them."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from insula.daemon.engine.interface import FIRST_CARD
from insula.daemon.engine.memory.engine import MemoryMachine
from insula.daemon.lifecycle import ways_out
from insula.daemon.lifecycle.ways_out import WaysOut
from insula.daemon.model.qube import Qube
from insula.daemon.network import uplink
from insula.daemon.network.uplink import Opened, UplinkError
from tests.serving import TIMEOUT, Instance, serving


class Opener:
    """Opens ways out that lead nowhere; each is a process that can be ended."""

    def __init__(self) -> None:
        self.opened: list[subprocess.Popen[bytes]] = []
        self.closed: list[UUID] = []
        self.refuse = False

    async def open(self, uuid: UUID, uid: int) -> Opened:
        assert uuid
        assert uid > 0
        if self.refuse:
            raise UplinkError("no way")
        process = subprocess.Popen(["sleep", "100"])  # noqa: ASYNC220 - of a test
        self.opened.append(process)
        ours, theirs = socket.socketpair()
        theirs.close()
        return Opened(ours, os.pidfd_open(process.pid))

    async def running(self, _uuid: UUID) -> int | None:
        return None

    async def close(self, uuid: UUID) -> None:
        self.closed.append(uuid)

    def end(self) -> None:
        """End all that were opened."""
        for process in self.opened:
            process.kill()
            process.wait()


@pytest.fixture
def opener() -> Iterator[Opener]:
    made = Opener()
    yield made
    made.end()


@pytest_asyncio.fixture
async def instance(tmp_path: Path, opener: Opener) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as made:
        ways = WaysOut(made.world, opener)
        ways.start()
        made.power.watchers.append(ways.watch)
        try:
            await made.template()
            yield made
        finally:
            await ways.close()


async def net_qube(instance: Instance, name: str = "net", **features: str) -> Qube:
    qube = await instance.qube(name, provides_network=True)
    for feature, value in features.items():
        await instance.ok("admin.vm.feature.Set", name, feature, value.encode())
    await instance.power.start(qube)
    return qube


def cards(instance: Instance, qube: Qube) -> set[int]:
    machine = instance.world.running[qube.uuid].machine
    assert isinstance(machine, MemoryMachine)
    return set(machine.macs)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_net_qube_gets_its_way_out(instance: Instance, opener: Opener) -> None:
    net = await net_qube(instance)
    await until(lambda: cards(instance, net) == {FIRST_CARD})
    assert len(opener.opened) == 1


async def test_one_that_ended_is_opened_again(instance: Instance, opener: Opener) -> None:
    net = await net_qube(instance)
    await until(lambda: cards(instance, net))
    opener.opened[0].send_signal(signal.SIGKILL)
    opener.opened[0].wait()
    await until(lambda: len(opener.opened) == 2)
    await until(lambda: cards(instance, net) == {FIRST_CARD})


async def test_other_name_servers_open_it_anew(
    instance: Instance, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways_out, "LOOK_EVERY", 0.05)
    await net_qube(instance)
    await until(lambda: opener.opened)
    monkeypatch.setattr(uplink, "resolvers", lambda: "nameserver 192.0.2.1\n")
    await until(lambda: len(opener.opened) == 2)


async def test_it_is_looked_for_until_there_is_one(
    instance: Instance, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways_out, "LOOK_EVERY", 0.05)
    opener.refuse = True
    net = await net_qube(instance)
    await asyncio.sleep(0.2)
    assert not cards(instance, net)
    opener.refuse = False
    await until(lambda: cards(instance, net) == {FIRST_CARD})


async def test_it_goes_with_its_qube(instance: Instance, opener: Opener) -> None:
    net = await net_qube(instance)
    await until(lambda: cards(instance, net))
    await instance.power.kill(net)
    await until(lambda: opener.closed == [net.uuid])


@pytest.mark.parametrize("name", ["inner", "without"])
async def test_who_has_a_netvm_or_wants_none_gets_none(
    instance: Instance, opener: Opener, name: str
) -> None:
    net = await net_qube(instance)
    await until(lambda: cards(instance, net))
    qube = await instance.qube(name, provides_network=True)
    if name == "inner":
        await instance.ok("admin.vm.property.Set", name, "netvm", b"net")
    else:
        await instance.ok("admin.vm.feature.Set", name, "uplink", b"none")
    await instance.power.start(qube)
    await asyncio.sleep(0.2)
    assert len(opener.opened) == 1
