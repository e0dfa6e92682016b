"""Addresses of names. Threads ask the resolver of the system: it may take long to say nothing."""

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_MOST_THREADS = 8
_RESOLVERS = Path("/etc/resolv.conf")
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}


class Name(NamedTuple):
    """A name whose addresses of one family are wanted."""

    version: int
    host: str


Answered = Callable[[Name, frozenset[str] | None], None]


class Names:
    """Asks for names. answered: called by threads with addresses, or None for a name that has none.

    A name that is asked for again while it is looked up is looked up once.
    """

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._wanted: queue.SimpleQueue[Name] = queue.SimpleQueue()
        self._under_way: set[Name] = set()
        self._threads = 0
        self._lock = threading.Lock()

    def ask(self, name: Name) -> None:
        """Have a name looked up."""
        with self._lock:
            if name in self._under_way:
                return
            self._under_way.add(name)
            self._wanted.put(name)
            if self._threads < min(_MOST_THREADS, len(self._under_way)):
                self._threads += 1
                # One that hangs must not keep the program from ending.
                threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            name = self._wanted.get()
            found = look_up(name)
            with self._lock:
                self._under_way.discard(name)
            self._answered(name, found)


def look_up(name: Name) -> frozenset[str] | None:
    """Addresses of a name; None where there is none."""
    try:
        found = socket.getaddrinfo(name.host, None, _AF[name.version], socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    addresses = set()
    for *_, end in found:
        with suppress(ValueError):
            # Without the card that a link's own addresses name.
            addresses.add(str(ipaddress.ip_address(str(end[0]).partition("%")[0])))
    return frozenset(addresses) or None


def resolvers(version: int) -> list[str]:
    """Addresses of the servers that this qube asks."""
    try:
        text = _RESOLVERS.read_text(errors="replace")
    except OSError:
        return []
    return parse_resolvers(text, version)


def parse_resolvers(text: str, version: int) -> list[str]:
    """Addresses of one family on the nameserver lines of a resolv.conf, each once."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                with suppress(ValueError):
                    parsed = ipaddress.ip_address(address)
                    if parsed.version == version and "%" not in address:
                        found[str(parsed)] = None
    return list(found)
