"""Run inside a qube, as python3 - HOW TARGET: requests for calls without end, each of another name.

HOW is "agent", as any program of a qube can, or "port", as its root can once the agent is ended.
"""

import os
import select
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, "/usr/lib/insula")
from insula.protocol.qrexec import AGENT_SOCKET, Trigger

_CONTROL = "org.insula.control"
_OPEN = 256  # requests at once, by the agent
_BATCH = 64  # by the port
_CHUNK = 65_536


def main() -> None:
    """Flood until ended."""
    how, target = sys.argv[1:]
    (_by_agent if how == "agent" else _by_port)(target)


def _request(target: str, number: int) -> bytes:
    return Trigger(target, b"SOCKET%d" % number, f"test.Name{number}").encode()


def _by_agent(target: str) -> None:
    number, poll, waiting = 0, select.epoll(), dict[int, socket.socket]()
    while True:
        while len(waiting) < _OPEN:
            number += 1
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(AGENT_SOCKET)
            connection.sendall(_request(target, number))
            waiting[connection.fileno()] = connection
            poll.register(connection, select.EPOLLIN)
        for descriptor, _ in poll.poll():
            poll.unregister(descriptor)
            waiting.pop(descriptor).close()


def _by_port(target: str) -> None:
    subprocess.run(["systemctl", "stop", "insula-agent"], check=True)
    names = Path("/sys/class/virtio-ports").glob("*/name")
    place = next(name.parent.name for name in names if name.read_text().strip() == _CONTROL)
    port = -1
    while port < 0:
        with suppress(OSError):  # The agent has it until it is gone.
            port = os.open(f"/dev/{place}", os.O_RDWR | os.O_NONBLOCK)
    number, poll, unsent = 0, select.poll(), b""
    poll.register(port, select.POLLIN | select.POLLOUT)
    while True:
        if not unsent:
            unsent = b"".join(_request(target, number + one) for one in range(_BATCH))
            number += _BATCH
        poll.poll()
        with suppress(BlockingIOError):
            unsent = unsent[os.write(port, unsent[:32_768]) :]
        with suppress(BlockingIOError):
            os.read(port, _CHUNK)


main()
