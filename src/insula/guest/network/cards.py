"""Network cards of this qube, by system calls: starting a program for each would take long."""

import fcntl
import socket
import struct
from collections.abc import Collection

_REQUEST = struct.Struct("16s24s")  # struct ifreq: a name and a union
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_SET_NAME, _SET_MAC, _GET_MAC = 0x8923, 0x8924, 0x8927
_UP = 1
_ETHERNET = 1
_NO_CARD = 0


def index_of(name: str) -> int:
    """The number by which the kernel knows a card as long as it is there; 0 when there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return _NO_CARD


def name_of(index: int) -> str | None:
    """What a card is called now; None when it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


def find(mac: str, apart_from: Collection[int]) -> int:
    """The card with a MAC that came last, passing over those with these numbers; 0 for none."""
    found = (
        index
        for index, name in socket.if_nameindex()
        if index not in apart_from and _mac(name) == mac
    )
    return max(found, default=_NO_CARD)


def all_names() -> list[str]:
    """All but the loopback."""
    return [name for _, name in socket.if_nameindex() if name != "lo"]


def is_up(name: str) -> bool:
    """Raises: OSError: there is no such card."""
    return bool(_flags(name) & _UP)


def take_down(name: str) -> None:
    """Let nothing pass any more; routes and IPv6 addresses go with it.

    Raises:
        OSError: there is no such card.
    """
    _ask(_SET_FLAGS, name, struct.pack("h", _flags(name) & ~_UP))


def rename(name: str, new: str) -> None:
    """Give a card that is down another name.

    Raises:
        OSError: the name is taken, or the card is gone.
    """
    _ask(_SET_NAME, name, new.encode("ascii"))


def set_mac(name: str, mac: str) -> None:
    """Give a card another MAC.

    Raises:
        OSError: it cannot have it, or is gone.
    """
    if _mac(name) != mac:
        _ask(_SET_MAC, name, struct.pack("H6s", _ETHERNET, bytes.fromhex(mac.replace(":", ""))))


def _mac(name: str) -> str:
    try:
        answer = _ask(_GET_MAC, name, b"")
    except OSError:
        return ""  # It went just now.
    return answer[18:24].hex(":")


def _flags(name: str) -> int:
    flags: int = struct.unpack_from("h", _ask(_GET_FLAGS, name, b""), 16)[0]
    return flags


def _ask(request: int, name: str, value: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        packed = _REQUEST.pack(name.encode("ascii"), value)
        answer: bytes = fcntl.ioctl(any_socket, request, packed)
    return answer
