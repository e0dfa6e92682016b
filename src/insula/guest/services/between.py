"""A call that is joined with a socket of this qube, everything that passes looked at."""

import os
import select
import socket
import sys
from collections.abc import Callable

from insula.protocol.errors import ProtocolError

_CHUNK = 65_536

Look = Callable[[bytearray], tuple[bytes, bytes]]


def join(agent: socket.socket, from_caller: Look, from_agent: Look) -> int:
    """Pass bytes on until either side ends; the exit code.

    Each side's function takes what is whole out of what was received, and says what is to be
    passed on and what is to be answered.
    """
    caller_in, caller_out = sys.stdin.fileno(), sys.stdout.fileno()
    untrusted, answered = bytearray(), bytearray()
    poll = select.poll()
    poll.register(caller_in, select.POLLIN)
    poll.register(agent, select.POLLIN)
    try:
        while True:
            for descriptor, _ in poll.poll():
                data = os.read(descriptor, _CHUNK)
                if descriptor == caller_in:
                    untrusted += data
                    passed, reply = from_caller(untrusted)
                    agent.sendall(passed)
                    _write(caller_out, reply)
                    if not data:
                        poll.unregister(caller_in)
                        agent.shutdown(socket.SHUT_WR)
                elif not data:
                    return 0
                else:
                    answered += data
                    passed, reply = from_agent(answered)
                    agent.sendall(reply)
                    _write(caller_out, passed)
    except ProtocolError as error:
        print(f"the caller: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the connection broke: {error}", file=sys.stderr)
        return 1


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
