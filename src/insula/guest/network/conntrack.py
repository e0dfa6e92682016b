"""Forgetting connections of an address, so that whoever has it next does not inherit them.

The kernel is asked by netlink (ctnetlink), as the program conntrack does.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from insula.guest.network.addresses import Address

_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, sender
_FAMILY = struct.Struct("=BBH")  # address family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_GET, _DELETE = 0x0101, 0x0102
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x001, 0x004, 0x300
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25  # attributes of a connection
_TUPLE_IP = 1
_LARGEST = 1 << 20  # bytes of an answer
_TIMEOUT = 10.0  # seconds


def forget(address: Address) -> None:
    """End all connections with an address at either end, before or after translation.

    Raises:
        OSError: the kernel could not be asked, or did not do it.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as kernel:
        kernel.settimeout(_TIMEOUT)
        kernel.bind((0, 0))
        found = {
            entry
            for direction in (_ORIGINAL, _REPLY)
            for end in (0, 1)
            for entry in _entries(kernel, family, address, direction, end)
        }
        for entry in found:
            _delete(kernel, family, entry)


def _entries(
    kernel: socket.socket, family: int, address: Address, direction: int, end: int
) -> Iterator[bytes]:
    """What names each connection with the address as source (end 0) or destination (1)."""
    kind = (3 if address.version == 6 else 1) + end
    wanted = _nest(_TUPLE_IP, _attribute(kind, address.packed))
    flags = [struct.pack("=I", 1 << end if where == direction else 0) for where in (1, 2)]
    body = _nest(direction, wanted) + _nest(
        _FILTER, _attribute(1, flags[0]) + _attribute(2, flags[1])
    )
    _send(kernel, family, _GET, _REQUEST | _DUMP, body)
    for message in _answers(kernel):
        attributes = dict(_attributes(message[_FAMILY.size :]))
        if address.packed in attributes[direction]:
            yield _nest(_ORIGINAL, attributes[_ORIGINAL]) + b"".join(
                _attribute(kind, attributes[kind]) for kind in (_ID, _ZONE) if kind in attributes
            )


def _delete(kernel: socket.socket, family: int, entry: bytes) -> None:
    _send(kernel, family, _DELETE, _REQUEST | _ACKNOWLEDGE, entry)
    try:
        for _ in _answers(kernel):
            pass
    except OSError as error:
        if error.errno != errno.ENOENT:  # It may have come to its end meanwhile.
            raise


def _send(kernel: socket.socket, family: int, kind: int, flags: int, body: bytes) -> None:
    body = _FAMILY.pack(family, 0, 0) + body
    kernel.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)


def _answers(kernel: socket.socket) -> Iterator[bytes]:
    """The bodies of all answers to a request, up to the one that ends them."""
    while True:
        received = memoryview(kernel.recv(_LARGEST))
        while received:
            length, kind, *_ = _HEADER.unpack_from(received)
            body = bytes(received[_HEADER.size : length])
            received = received[_aligned(length) :]
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", body)[0]
                if number:
                    raise OSError(number, f"conntrack: {os.strerror(number)}")
                return
            yield body


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & ~_NESTED, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _nest(kind: int, content: bytes) -> bytes:
    return _attribute(kind | _NESTED, content)


def _attribute(kind: int, content: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(content)
    return _ATTRIBUTE.pack(length, kind) + content + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
