"""Data connections: each has a number of its own, and gives back what it took when it fails."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from insula.daemon.rpc.agent_link import AgentLink
from insula.daemon.rpc.calls import Calls
from insula.daemon.rpc.ports import PortPool
from insula.protocol.control import Attach
from insula.protocol.errors import ReportableError
from insula.protocol.qrexec import ExecParameters, MessageType

PORTS = 12


class SlowMachine:
    """A machine whose ports take a turn of the loop to be joined, as over a monitor."""

    def __init__(self) -> None:
        self.joined_ports: set[int] = set()
        self.failing = False

    async def join(self, port: int, end: int) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise ReportableError("the machine is gone")
        os.fstat(end)
        self.joined_ports.add(port)

    async def part(self, port: int) -> None:
        self.joined_ports.discard(port)

    async def joined(self, port: int) -> bool:
        return port in self.joined_ports


class RecordingLink(AgentLink):
    """A link that keeps what it is told to send."""

    def __init__(self) -> None:
        super().__init__("test", Path("/nowhere"))
        self.sent: list[tuple[Attach, MessageType, bytes]] = []

    def attach(self, attach: Attach, message_type: MessageType, body: bytes) -> None:
        self.sent.append((attach, message_type, body))


async def test_calls_opened_at_once_get_numbers_and_ports_of_their_own() -> None:
    machine, link = SlowMachine(), RecordingLink()
    calls = Calls("test", machine, link, PortPool(3, 2 + PORTS, reserved=2))
    opened = await asyncio.gather(
        *(calls.open(MessageType.EXEC_CMDLINE, "user:true") for _ in range(PORTS - 2))
    )
    try:
        assert len({one.port for one in opened}) == PORTS - 2
        assert len({attach.index for attach, _, _ in link.sent}) == PORTS - 2
    finally:
        for one in opened:
            os.close(one.end)


async def test_a_number_returns_when_both_ends_are_over() -> None:
    link = RecordingLink()
    calls = Calls("test", SlowMachine(), link, PortPool(3, 2 + PORTS, reserved=2))
    first = await calls.open(MessageType.EXEC_CMDLINE, "user:true")
    socket.socket(fileno=first.end).close()
    over = ExecParameters(first.domain, first.port).encode()
    link.on_qrexec(MessageType.CONNECTION_TERMINATED, over)
    assert not calls.idle
    idle = asyncio.Event()
    calls.on_idle = idle.set
    calls.caller_over(first)
    await asyncio.wait_for(idle.wait(), 5)
    second = await calls.open(MessageType.EXEC_CMDLINE, "user:true")
    os.close(second.end)
    assert second.port == first.port


async def test_a_call_that_fails_leaves_nothing() -> None:
    machine = SlowMachine()
    machine.failing = True
    calls = Calls("test", machine, RecordingLink(), PortPool(3, 2 + PORTS, reserved=2))
    for _ in range(2 * PORTS):
        with pytest.raises(ReportableError, match="the machine is gone"):
            await calls.open(MessageType.EXEC_CMDLINE, "user:true")
    assert calls.idle
