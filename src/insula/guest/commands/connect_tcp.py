"""qvm-connect-tcp: a port here leads to a port of another qube (in-qube.md section 5)."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from insula.guest.commands.calling import call_words

_WORD = re.compile(r"(?:(?P<local>\d{0,5}):)(?P<qube>[^:]*):(?P<port>\d{1,5})", re.ASCII)
_USAGE = "usage: qvm-connect-tcp [LOCAL-PORT]:[QUBE]:PORT"
_EXIT_USAGE = 1
_MOST_PORT = 65_535
_BACKLOG = 64


class Binding(NamedTuple):
    """A port of this qube's loopback, and what it leads to."""

    local: int
    qube: str
    port: int


def parse(word: str) -> Binding | None:
    """Read [LOCAL-PORT]:[QUBE]:PORT; None when it is something else."""
    found = _WORD.fullmatch(word)
    if found is None:
        return None
    port = int(found["port"])
    local = int(found["local"] or port)
    if not (0 < port <= _MOST_PORT and 0 < local <= _MOST_PORT):
        return None
    return Binding(local, found["qube"] or "@default", port)


def main(words: Sequence[str] | None = None) -> int:
    """Listen in the background; each connection is a call of its own."""
    given = list(sys.argv[1:] if words is None else words)
    binding = parse(given[0]) if len(given) == 1 else None
    if binding is None:
        print(_USAGE, file=sys.stderr)
        return _EXIT_USAGE
    try:
        listener = socket.create_server(("127.0.0.1", binding.local), backlog=_BACKLOG)
    except OSError as error:
        print(f"qvm-connect-tcp: port {binding.local}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"Binding TCP '{binding.qube}:{binding.port}' to 'localhost:{binding.local}'...")
    sys.stdout.flush()
    if os.fork():
        return 0
    os.setsid()
    _serve(listener, binding)
    return 0


def _serve(listener: socket.socket, binding: Binding) -> None:
    service = f"qubes.ConnectTCP+{binding.port}"
    running: list[subprocess.Popen[bytes]] = []
    while True:
        connection, _ = listener.accept()
        running = [one for one in running if one.poll() is None]
        with connection:
            running.append(
                subprocess.Popen(
                    call_words(binding.qube, service, options=["--use-stdin-socket"]),
                    stdin=connection.fileno(),
                    stdout=subprocess.DEVNULL,
                )
            )
