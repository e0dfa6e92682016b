"""A provider with two clients and what is outside, each a network namespace."""

import errno
import itertools
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from tests.net.namespaces import Namespace, join

TIMEOUT = 20.0  # seconds
_MAC = "00:16:3e:5e:6c:00"
_PROVIDER_MAC = "fe:ff:ff:ff:ff:ff"
_UPLINK_MAC, _OUTSIDE_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
_BARRIER_PORT = 9


@dataclass(frozen=True, slots=True)
class Family:
    """Addresses of one family. served: those that servers outside have."""

    version: int
    clients: tuple[str, str]
    absent: str
    provider: str
    uplink: str
    outside: str
    served: tuple[str, ...]

    @property
    def nft(self) -> str:
        return "ip" if self.version == 4 else "ip6"

    @property
    def socket(self) -> socket.AddressFamily:
        return socket.AF_INET if self.version == 4 else socket.AF_INET6

    @property
    def length(self) -> int:
        return 32 if self.version == 4 else 128


IPV4 = Family(
    version=4,
    clients=("10.137.0.5", "10.137.0.6"),
    absent="10.137.0.7",
    provider="10.137.0.9",
    uplink="192.0.2.2",
    outside="192.0.2.1",
    served=("198.51.100.7", "198.51.100.8", "203.0.113.53"),
)
IPV6 = Family(
    version=6,
    clients=("fd09:24ef:4179::a89:5", "fd09:24ef:4179::a89:6"),
    absent="fd09:24ef:4179::a89:7",
    provider="fd09:24ef:4179::a89:9",
    uplink="2001:db8::2",
    outside="2001:db8::1",
    served=("2001:db8:1::7", "2001:db8:1::8", "2001:db8:2::53"),
)
BOTH = (IPV4, IPV6)


class World:
    """The namespaces, with links as the agent would set them up, but without any rule."""

    def __init__(self, provider: Namespace, outside: Namespace, *clients: Namespace) -> None:
        self.provider, self.outside, self.clients = provider, outside, clients
        self._count = itertools.count()
        for family in BOTH:
            forwarding = "ipv4/ip_forward" if family.version == 4 else "ipv6/conf/all/forwarding"
            provider.write(forwarding, "1")
            # Senders are told of each packet that is rejected.
            told = "ipv4/icmp_ratelimit" if family.version == 4 else "ipv6/icmp/ratelimit"
            provider.write(told, "0")
        join(provider, "eth0", outside, "lan")
        provider.ip(f"link set eth0 address {_UPLINK_MAC}", "link set eth0 up")
        outside.ip(f"link set lan address {_OUTSIDE_MAC}", "link set lan up")
        for family in BOTH:
            length = 24 if family.version == 4 else 64
            flag = "nodad" if family.version == 6 else ""
            provider.ip(
                f"addr add {family.uplink}/{length} dev eth0 {flag}",
                f"neigh replace {family.outside} lladdr {_OUTSIDE_MAC} dev eth0 nud permanent",
                f"route add default via {family.outside} dev eth0",
            )
            outside.ip(
                f"addr add {family.outside}/{length} dev lan {flag}",
                f"neigh replace {family.uplink} lladdr {_UPLINK_MAC} dev lan nud permanent",
                *(f"addr add {served}/{family.length} dev lo {flag}" for served in family.served),
                # So that what is outside can try to reach clients.
                *(f"route add {client} via {family.uplink}" for client in family.clients),
                f"route add {family.absent} via {family.uplink}",
            )
        for number, client in enumerate(clients):
            self._connect(number, client)
        self._barrier = outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._barrier.bind((IPV4.outside, _BARRIER_PORT))

    def close(self) -> None:
        self._barrier.close()
        for namespace in (self.provider, self.outside, *self.clients):
            namespace.close()

    def _connect(self, number: int, client: Namespace) -> None:
        vif = f"vif{number + 1}.0"
        join(self.provider, vif, client, "eth0")
        self.provider.ip(f"link set {vif} address {_PROVIDER_MAC} group 2", f"link set {vif} up")
        client.ip(f"link set eth0 address {_MAC} group 1", "link set eth0 up")
        for family in BOTH:
            address, flag = family.clients[number], "nodad" if family.version == 6 else ""
            self.provider.ip(
                f"addr add {family.provider}/{family.length} dev {vif} {flag}",
                f"neigh replace {address} lladdr {_MAC} dev {vif} nud permanent",
                f"route add {address} dev {vif}",
            )
            client.ip(
                f"addr add {address}/{family.length} dev eth0 {flag}",
                f"neigh replace {family.provider} lladdr {_PROVIDER_MAC} dev eth0 nud permanent",
                f"route add {family.provider} dev eth0",
                f"route add default via {family.provider} dev eth0 onlink",
            )

    def admit(self, number: int, *families: Family) -> None:
        """Let a client use its addresses, as configuring its link does."""
        for family in families:
            address = family.clients[number]
            self.provider.nft(
                f'add element {family.nft} qubes allowed {{ "vif{number + 1}.0" . {address} }}\n'
                f"add element {family.nft} qubes downstream {{ {address} }}\n"
            )

    def settled(self) -> None:
        """Wait until whatever was sent before is through the provider."""
        token = str(next(self._count)).encode()
        with self.provider.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(token, (IPV4.outside, _BARRIER_PORT))
        while self._barrier.recv(100) != token:
            pass

    def pinged(self, place: Namespace, family: Family, target: str) -> bool:
        """Whether an echo request is answered by whoever is at most behind this provider."""
        with _pinging(place, family, target) as sender:
            self.settled()
            return _answered(sender, family, target)


@contextmanager
def world() -> Iterator[World]:
    made = World(*(Namespace() for _ in range(4)))
    try:
        yield made
    finally:
        made.close()


class Udp:
    """A server that keeps what comes."""

    def __init__(self, place: Namespace, family: Family, address: str, port: int) -> None:
        self.socket = place.socket(family.socket, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, port))
        self.at = (address, port)

    def received(self) -> list[tuple[bytes, str]]:
        """What came since the last look: data and the sender's address."""
        found = []
        while select.select([self.socket], [], [], 0)[0]:
            data, sender = self.socket.recvfrom(2048)
            found.append((data, sender[0]))
        return found

    def answer(self) -> bytes:
        """Wait for something, and send it back."""
        data, sender = self.socket.recvfrom(2048)
        self.socket.sendto(data, sender)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def send(
    place: Namespace,
    family: Family,
    target: tuple[str, int],
    data: bytes = b"x",
    source: str | None = None,
) -> None:
    """Send a datagram; source: from an address that need not be the sender's."""
    with place.socket(family.socket, socket.SOCK_DGRAM) as sender:
        if source is not None:
            _any_source(sender, family)
            sender.bind((source, 0))
        sender.sendto(data, target)


def refused(place: Namespace, family: Family, target: tuple[str, int]) -> bool:
    """Send a datagram that is to be rejected; whether the sender was told."""
    with place.socket(family.socket, socket.SOCK_DGRAM) as sender:
        sender.connect(target)
        sender.settimeout(TIMEOUT)
        try:
            sender.send(b"refused")
            sender.recv(10)
        except OSError as error:
            return error.errno in (errno.EHOSTUNREACH, errno.EACCES)
    return False


def pinged(place: Namespace, family: Family, target: str) -> bool:
    """Whether an echo request is answered within a second."""
    with _pinging(place, family, target) as sender:
        deadline = time.monotonic() + 1
        while (left := deadline - time.monotonic()) > 0:
            if select.select([sender], [], [], left)[0] and _answered(sender, family, target):
                return True
    return False


def _pinging(place: Namespace, family: Family, target: str) -> socket.socket:
    protocol = socket.IPPROTO_ICMP if family.version == 4 else socket.IPPROTO_ICMPV6
    sender = place.socket(family.socket, socket.SOCK_RAW, protocol)
    try:
        sender.sendto(_echo_request(family), (target, 0))
    except OSError:
        sender.close()
        raise
    return sender


def _answered(sender: socket.socket, family: Family, target: str) -> bool:
    """Whether an echo reply of the target is among what came."""
    found = False
    while select.select([sender], [], [], 0)[0]:
        data, (who, *_) = sender.recvfrom(2048)
        kind = data[(data[0] & 15) * 4] if family.version == 4 else data[0]
        found |= who == target and kind == (0 if family.version == 4 else 129)
    return found


def _echo_request(family: Family) -> bytes:
    """A message; the kernel sums what is IPv6."""
    kind = 8 if family.version == 4 else 128
    rest = struct.pack("!HH", 7, 1) + b"insula!!"
    total = sum(struct.unpack(f"!{len(rest) // 2}H", rest)) + (kind << 8)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", kind, 0, ~total & 0xFFFF) + rest


def _any_source(sender: socket.socket, family: Family) -> None:
    if family.version == 4:
        sender.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
        sender.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
        sender.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT


@contextmanager
def servers(place: Namespace, family: Family, *ports: int) -> Iterator[dict[tuple[str, int], Udp]]:
    """A server for each port at each address that is served outside."""
    with ExitStack() as stack:
        made = {}
        for address in family.served:
            for port in ports:
                made[address, port] = stack.enter_context(Udp(place, family, address, port))
        yield made
