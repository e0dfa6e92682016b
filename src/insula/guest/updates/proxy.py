"""The updates proxy of a net qube: package managers of templates reach their mirrors through it.

It has no access to the network of its own choosing: CONNECT to two ports, http, nothing that lies
in this qube or behind it. Each connection is a request, as with the proxy of Qubes.
"""

import ipaddress
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from insula.guest.updates.passing import join
from insula.guest.updates.requests import MAX_HEAD, BadRequestError, Request, parse

CLIENTS = 50
TIMEOUT = 60.0  # seconds
_IDLE = 120.0  # seconds without a client after which it ends; the socket unit starts it again
_LISTENER = 3  # the descriptor that a socket unit passes
_TORIFIED = Path("/run/qubes-service/tor-gateway")
_OF_QUBES = (
    *(ipaddress.ip_network(f"10.{number}.0.0/16") for number in (137, 138, 139)),
    ipaddress.ip_network("fd09:24ef:4179::/48"),
)
_CLIENTS_OF_OLD = ipaddress.ip_network("10.137.0.0/16")
_END = b"\r\n\r\n"
# Programs of anonymous qubes look for this sign that their updates do not go the open way.
_SIGN = '<meta name="application-name" content="tor proxy"/>'
_PAGE = "<!DOCTYPE html><html><head><title>{title}</title>{sign}</head><body>{why}</body></html>"


def may_be_reached(text: str) -> bool:
    """Whether an address is of a place that updates come from: not of this qube, nor of others."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    itself = address.is_loopback or address.is_unspecified or address.is_link_local
    inside = any(address.version == one.version and address in one for one in _OF_QUBES)
    return not (itself or inside or address.is_multicast)


def may_ask(text: str) -> bool:
    """Whether a client's address is one that is served: this qube's own, or of a qube behind it."""
    address = ipaddress.ip_address(text)
    return address.is_loopback or address in _CLIENTS_OF_OLD


class Proxy:
    """Serves a listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        reachable: Callable[[str], bool] = may_be_reached,
        torified: Callable[[], bool] = _TORIFIED.exists,
        timeout: float = TIMEOUT,
    ) -> None:
        self._listener = listener
        self._reachable, self._torified = reachable, torified
        self._timeout = timeout
        self._free = threading.Semaphore(CLIENTS)
        self._running: set[threading.Thread] = set()

    def serve(self, idle: float) -> None:
        """Serve until nobody has come for a while and nobody is left; further clients wait."""
        self._listener.settimeout(idle)
        while True:
            self._free.acquire()
            try:
                connection, address = self._listener.accept()
            except TimeoutError:
                self._free.release()
                self._running = {one for one in self._running if one.is_alive()}
                if not self._running:
                    return
                continue
            if not may_ask(address[0]):
                connection.close()
                self._free.release()
                continue
            thread = threading.Thread(target=self._client, args=(connection,), daemon=True)
            self._running.add(thread)
            thread.start()

    def _client(self, client: socket.socket) -> None:
        try:
            with client, suppress(OSError):
                self._answer(client)
        finally:
            self._free.release()

    def _answer(self, client: socket.socket) -> None:
        try:
            head, rest = _read_head(client, time.monotonic() + self._timeout)
            client.settimeout(self._timeout)
            request = parse(head)
            with self._connect(request) as server:
                if request.head is None:
                    client.sendall(b"HTTP/1.1 200 Connection established" + _END)
                else:
                    server.sendall(request.head)
                join(client, server, self._timeout, rest)
        except BadRequestError as error:
            client.sendall(self._page(error))

    def _connect(self, request: Request) -> socket.socket:
        """Connect to the first address that answers, of those that may be reached."""
        try:
            found = socket.getaddrinfo(request.host, request.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise BadRequestError("502 Bad Gateway", "no such host") from None
        allowed = [one for one in found if self._reachable(str(one[4][0]))]
        if not allowed:
            raise BadRequestError("403 Forbidden", "no updates come from there")
        for family, kind, number, _, address in allowed:
            server = socket.socket(family, kind, number)
            server.settimeout(self._timeout)
            try:
                server.connect(address)
            except OSError:
                server.close()
            else:
                return server
        raise BadRequestError("502 Bad Gateway", "the host does not answer")

    def _page(self, error: BadRequestError) -> bytes:
        sign = _SIGN if self._torified() else ""
        body = _PAGE.format(title=error.status, sign=sign, why=error).encode()
        head = f"HTTP/1.1 {error.status}\r\nContent-Type: text/html\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _read_head(client: socket.socket, deadline: float) -> tuple[bytes, bytes]:
    """The head of a request, and what came after it."""
    received = bytearray()
    while _END not in received:
        if len(received) > MAX_HEAD:
            raise BadRequestError("431 Request Header Fields Too Large", "too long")
        client.settimeout(max(deadline - time.monotonic(), 0.001))
        data = client.recv(4096)
        if not data:
            raise ConnectionError("the client went away")
        received += data
    head, _, rest = bytes(received).partition(_END)
    return head, rest


def main() -> int:
    """Serve the socket that a socket unit passes, and end when nobody comes any more."""
    if os.environ.get("LISTEN_FDS") != "1":
        print("qubes-updates-proxy: it is started by its socket unit", file=sys.stderr)
        return 2
    with socket.socket(fileno=_LISTENER) as listener:
        Proxy(listener).serve(_IDLE)
    return 0
