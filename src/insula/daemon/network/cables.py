"""Cables between qubes: pairs of sockets that carry Ethernet frames, and which the keeper holds.

A cable is the client's for as long as it runs with this provider. Its provider may go and come
back: the new machine gets a duplicate of the same end, and the client's card never notices.
"""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

_PREFIX = "cable/"
_BUFFER = 1 << 20  # bytes
_MOST_STALE = 10_000  # frames
_NEAR, _FAR = "provider", "client"


class Holder(Protocol):
    """What holds descriptors by name, and outlives the daemon."""

    async def hold(self, name: str, descriptor: int) -> None: ...

    async def take(self, name: str) -> int: ...

    async def drop(self, name: str) -> None: ...

    async def names(self, prefix: str) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Cable:
    """A client's cable to its provider."""

    client: UUID
    provider: UUID

    def end(self, which: str) -> str:
        """The name by which one of its ends is held."""
        return f"{_PREFIX}{self.client}/{self.provider}/{which}"


class Cables:
    """Makes and finds them."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    async def make(self, cable: Cable) -> None:
        """Make a cable anew."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with near, far:
            for end, name in ((near, _NEAR), (far, _FAR)):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                end.setblocking(False)
                await self._holder.hold(cable.end(name), end.fileno())

    async def provider_end(self, cable: Cable) -> socket.socket:
        """The end that its provider's machine gets; what lay there for an earlier one is gone.

        Raises:
            KeyError: there is no such cable.
        """
        end = socket.socket(fileno=await self._holder.take(cable.end(_NEAR)))
        _drain(end)
        return end

    async def client_end(self, cable: Cable) -> socket.socket:
        """The end that its client's machine gets.

        Raises:
            KeyError: there is no such cable.
        """
        return socket.socket(fileno=await self._holder.take(cable.end(_FAR)))

    async def drop(self, cable: Cable) -> None:
        """Let go of a cable; it is gone once no machine has an end of it."""
        for name in (_NEAR, _FAR):
            with suppress(KeyError):
                await self._holder.drop(cable.end(name))

    async def all(self) -> list[Cable]:
        """Those that are there, be it since an earlier daemon."""
        found = set()
        for name in await self._holder.names(_PREFIX):
            client, provider, _ = name.removeprefix(_PREFIX).split("/")
            found.add(Cable(UUID(client), UUID(provider)))
        return sorted(found, key=lambda cable: (cable.client, cable.provider))


def _drain(end: socket.socket) -> None:
    """Take what is queued, whatever it is."""
    for _ in range(_MOST_STALE):
        try:
            os.read(end.fileno(), 1)
        except BlockingIOError:
            return
