"""What an agent may send on its control port, and what a qube may write on a data port."""

from contextlib import suppress
from functools import partial

from insula.protocol import control, qrexec
from insula.protocol.control import AgentHello, ControlType, Seeded, Status
from insula.protocol.errors import ProtocolError
from insula.protocol.frames import take_raw_frame
from insula.protocol.qrexec import ExecParameters, MessageType, Trigger, TriggerError
from insula.protocol.resync import CONTROL_PREFIX, MarkerFinder, PrefixScanner

_NONCE = bytes(16)


def fuzz(data: bytes) -> None:
    """One input: a control session behind its marker, a data channel, and both scanners."""
    with suppress(ProtocolError):
        received = bytearray(MarkerFinder(CONTROL_PREFIX + _NONCE).feed(data))
        received += data
        while (raw := take_raw_frame(received, control.MAX_FROM_GUEST)) is not None:
            assert len(raw.body) <= control.MAX_FROM_GUEST
            _message(raw.type, raw.body)
    with suppress(ProtocolError):
        channel = bytearray(data)
        while qrexec.take_data(channel, qrexec.MAX_CHUNK) is not None:
            pass
    for version in (2, 3, 4):
        with suppress(ProtocolError):
            received = bytearray(data)
            check = partial(qrexec.check_from_agent, version)
            while (raw := take_raw_frame(received, qrexec.MAX_TRIGGER, check)) is not None:
                _message(raw.type, raw.body)
    scanner = PrefixScanner(CONTROL_PREFIX)
    half = len(data) // 2
    found = scanner.feed(data[:half]) + scanner.feed(data[half:])
    assert sum(len(one) if isinstance(one, bytes) else 0 for one in found) <= len(data)


def _message(kind: int, body: bytes) -> None:
    match kind:
        case ControlType.AGENT_HELLO:
            hello = AgentHello.decode(body)
            assert len(hello.sessions) <= control.MAX_SESSIONS
        case ControlType.SEEDED:
            Seeded.decode(body)
        case ControlType.PARKED | ControlType.READY:
            Status.decode(body)
        case MessageType.CONNECTION_TERMINATED:
            ExecParameters.decode(body)
        case (
            MessageType.TRIGGER_SERVICE
            | MessageType.TRIGGER_SERVICE3
            | MessageType.TRIGGER_SERVICE4
        ):
            with suppress(TriggerError):
                trigger = Trigger.decode(MessageType(kind), body)
                assert trigger.service.isascii()
        case _:
            pass
