"""Connections that the kernel knows of, and having it forget some (ctnetlink).

By netlink and not by the program conntrack, which would be run once for each connection.
"""

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

_NETFILTER = 12  # NETLINK_NETFILTER
_GET, _DELETE = 0x101, 0x102  # subsystem 1, conntrack
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 0x1, 0x300
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_FAMILY = struct.Struct("!BBH")  # address family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
# Attributes of a connection, of a tuple in it, of a tuple's addresses and of its protocol.
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_IP, _PROTOCOL = 1, 2
_SOURCES = (1, 3)  # of IPv4, of IPv6
_NUMBER, _SOURCE_PORT, _ICMP_TYPES = 1, 2, (5, 8)
_ORIGINAL_FLAGS = 1  # of a filter
_BY_SOURCE = 0x1
_RECEIVE = 1 << 18
_PATIENCE = 10.0  # seconds
_AT_ONCE = 64  # connections in one message to the kernel


@dataclass(frozen=True)
class Connection:
    """A connection, as the attributes by which the kernel tells of it."""

    attributes: dict[int, bytes]

    @cached_property
    def _original(self) -> dict[int, bytes]:
        return attributes(self.attributes[_ORIGINAL])

    @cached_property
    def _reply(self) -> dict[int, bytes]:
        return attributes(self.attributes[_REPLY])

    @property
    def source(self) -> bytes:
        """The address that began it."""
        return _source(self._original)

    @property
    def target(self) -> bytes:
        """The address that answers: where it goes to once its target was rewritten."""
        return _source(self._reply)

    @property
    def ends(self) -> frozenset[bytes]:
        """Addresses of both ends, before and after they are rewritten."""
        return frozenset(
            address
            for direction in (self._original, self._reply)
            for address in attributes(direction[_IP]).values()
        )

    @property
    def protocol(self) -> int:
        """Its number in IP."""
        return attributes(self._reply[_PROTOCOL])[_NUMBER][0]

    @property
    def target_port(self) -> int | None:
        """The port that answers, of protocols that have ports."""
        port = attributes(self._reply[_PROTOCOL]).get(_SOURCE_PORT)
        return None if port is None else int.from_bytes(port, "big")

    @property
    def icmp_type(self) -> int | None:
        """The type of the message that began it, of ICMP."""
        found = attributes(self._original[_PROTOCOL])
        return next((found[kind][0] for kind in _ICMP_TYPES if kind in found), None)


def forget(address: str) -> None:
    """Forget all connections of an address, so that who has it next does not inherit them.

    Raises:
        OSError: the kernel does not tell, or does not do it.
    """
    with Connections(ipaddress.ip_address(address).version) as connections:
        connections.forget(list(connections.with_end(address)))


class Connections:
    """The kernel's table, of one family of addresses."""

    def __init__(self, version: int) -> None:
        """Raises: OSError: the kernel has none."""
        self._version = version
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kernel.close()

    def begun_by(self, address: str) -> Iterator[Connection]:
        """Those that an address began.

        Raises:
            OSError: the kernel does not tell.
        """
        source = ipaddress.ip_address(address).packed
        wanted = b""
        if self._version == 4:  # Of IPv6, kernels list all but those that are asked for.
            begun = attribute(_IP | _NESTED, attribute(_SOURCES[0], source))
            flags = attribute(_ORIGINAL_FLAGS, struct.pack("=I", _BY_SOURCE))
            wanted = attribute(_ORIGINAL | _NESTED, begun) + attribute(_FILTER | _NESTED, flags)
        return (found for found in self._listed(wanted) if found.source == source)

    def with_end(self, address: str) -> Iterator[Connection]:
        """Those that have an address at an end, before or after it is rewritten.

        Raises:
            OSError: the kernel does not tell.
        """
        end = ipaddress.ip_address(address).packed
        return (found for found in self._listed(b"") if end in found.ends)

    def forget(self, connections: Sequence[Connection]) -> None:
        """Have the kernel forget them; what belongs to one later begins another, or is invalid.

        Raises:
            OSError: it does not.
        """
        self._kernel.setblocking(False)
        for start in range(0, len(connections), _AT_ONCE):
            some = connections[start : start + _AT_ONCE]
            self._kernel.send(b"".join(_deletion(self._version, one) for one in some))
            self._look_at_errors()

    def _listed(self, wanted: bytes) -> Iterator[Connection]:
        self._kernel.settimeout(_PATIENCE)
        self._kernel.send(_message(_GET, _REQUEST | _DUMP, self._version, wanted))
        while True:
            for kind, body in _messages(self._kernel.recv(_RECEIVE)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(*_error(body))
                yield Connection(attributes(body[_FAMILY.size :]))

    def _look_at_errors(self) -> None:
        """Raise what was refused: all that was sent has been done when send() returns."""
        while True:
            try:
                data = self._kernel.recv(_RECEIVE)
            except BlockingIOError:
                return
            for kind, body in _messages(data):
                if kind == _ERROR and _error(body)[0] not in (0, errno.ENOENT):
                    raise OSError(*_error(body))


def attributes(data: bytes) -> dict[int, bytes]:
    """Values by their types. Raises: ValueError: there are bytes that are none."""
    found: dict[int, bytes] = {}
    while data:
        if len(data) < _ATTRIBUTE.size:
            raise ValueError("an attribute is cut short")
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            raise ValueError(f"an attribute of {length} bytes")
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[length + 3 & ~3 :]
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """A value with its type, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _source(direction: dict[int, bytes]) -> bytes:
    addresses = attributes(direction[_IP])
    return next(addresses[kind] for kind in _SOURCES if kind in addresses)


def _deletion(version: int, connection: Connection) -> bytes:
    """A message that names a connection: by its number, too, lest another has its ends by now."""
    found = connection.attributes
    named = attribute(_ORIGINAL | _NESTED, found[_ORIGINAL])
    named += b"".join(attribute(kind, found[kind]) for kind in (_ID, _ZONE) if kind in found)
    return _message(_DELETE, _REQUEST, version, named)


def _message(kind: int, flags: int, version: int, body: bytes) -> bytes:
    length = _HEADER.size + _FAMILY.size + len(body)
    return _HEADER.pack(length, kind, flags, 0, 0) + _FAMILY.pack(_AF[version], 0, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            raise OSError(f"netlink message of {length} bytes")
        yield kind, data[_HEADER.size : length]
        data = data[length + 3 & ~3 :]


def _error(body: bytes) -> tuple[int, str]:
    number = -struct.unpack_from("=i", body)[0]
    return number, os.strerror(number)
