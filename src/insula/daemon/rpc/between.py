"""A data connection between two running qubes: their machines hold an end each, and nobody else."""

import secrets
import socket
from typing import NamedTuple

from insula.daemon.rpc.calls import Calls, Opened
from insula.daemon.rpc.ports import Direction
from insula.protocol.qrexec import MessageType
from insula.protocol.resync import NONCE_SIZE


class Party(NamedTuple):
    """A running qube: its domain number and its connections."""

    domain: int
    calls: Calls


async def connect(caller: Party, callee: Party, command: str, request_id: bytes) -> Opened:
    """Have the callee run a command and connect it to the call that the caller asked for.

    Returns the callee's end: `over` is set once its agent is done with the call.

    Raises:
        ReportableError: every data port is in use, or one of them cannot be reached.
    """
    # In this order: one who waits for a callee's port may hold one of those for outgoing calls,
    # of which none is ever needed by an incoming one.
    outgoing = await caller.calls.reserve(Direction.OUTGOING, callee.domain)
    try:
        incoming = await callee.calls.reserve(Direction.INCOMING, caller.domain)
    except BaseException:
        await caller.calls.abandon(outgoing)
        raise
    ends = socket.socketpair()
    try:
        nonce = secrets.token_bytes(NONCE_SIZE)
        await callee.calls.join(incoming, ends[0].fileno())
        await caller.calls.join(outgoing, ends[1].fileno())
        callee.calls.execute(incoming, nonce, MessageType.EXEC_CMDLINE, command)
    except BaseException:
        await callee.calls.abandon(incoming)
        await caller.calls.abandon(outgoing)
        raise
    finally:
        for end in ends:
            end.close()
    callee.calls.follow(incoming, outgoing)
    caller.calls.follow(outgoing, incoming)
    try:
        caller.calls.accept(outgoing, nonce, request_id)
    except BaseException:
        outgoing.over.set()  # Nobody is there to say so: the callee is to see the call end.
        raise
    return incoming
