"""The way out of a net qube: passt, in a network of its own that pasta makes, in a jail.

passt makes connections for whoever sends it frames, and would make them to the host's own loopback
as well. So it runs in a network namespace whose loopback nobody listens on, and whose only way out
is pasta; neither maps the gateway to the host, and nothing is forwarded inwards.
"""

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from insula.keeper.client import (
    JailError,
    KeeperClient,
    Requirements,
    assert_jailed,
    described,
)
from insula.protocol.errors import ReportableError
from insula.protocol.keeper import JailKind, JailSpec

PROGRAM = Path("/usr/bin/pasta")
ADDRESS, GATEWAY, DNS = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
ADDRESS6, GATEWAY6 = "fd09:24ef:4179:2::15/64", "fd09:24ef:4179:2::2"
_MAC = "02:69:6e:73:00:02"
_RESOLVERS = Path("/etc/resolv.conf")
_PREFIX = "uplink/"
_FRAMES = 3  # the descriptor of the frames
_UP_TIMEOUT = 10.0  # seconds
_UP_POLL = 0.05
_END_TIMEOUT = 5.0
_SAID = 400  # characters of an error that are told


class UplinkError(ReportableError):
    """A net qube has no way out."""


class Opened(NamedTuple):
    """A way out. end: the machine's, a stream of frames. gone: a pidfd of what serves the other."""

    end: socket.socket
    gone: int


class Uplinks:
    """Opens and closes them. root: whether the instance runs as root."""

    def __init__(self, keeper: KeeperClient, *, root: bool) -> None:
        self._keeper, self._root = keeper, root

    async def open(self, uuid: UUID, uid: int) -> Opened:
        """Open a way out anew; both of the result are the caller's to close.

        Raises:
            ReportableError: there is none, or its jail is not in force; nothing of it is left.
        """
        if not PROGRAM.exists():
            error = UplinkError("passt is not installed")
            error.hint = "Install it: sudo apt install passt"
            raise error
        await self.close(uuid)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                jail = _jail(uid if self._root else None)
                spawned = await self._keeper.spawn(_name(uuid), jail, [theirs.fileno()])
                try:
                    given = described([theirs.fileno()])
                    await self._wait_until_jailed(uuid, jail, given)
                except BaseException:
                    os.close(spawned.pidfd)
                    await self.close(uuid)
                    raise
        except BaseException:
            ours.close()
            raise
        return Opened(ours, spawned.pidfd)

    async def _wait_until_jailed(self, uuid: UUID, jail: JailSpec, given: frozenset[str]) -> None:
        """Wait until it has shut itself in: it does so before it reads a frame."""
        wanted = Requirements(uid=jail.uid, seccomp=False, given=given, kind=JailKind.UPLINK)
        last: ReportableError = UplinkError("it did not start")
        try:
            async with asyncio.timeout(_UP_TIMEOUT):
                while True:
                    try:
                        assert_jailed(await self._keeper.verify(_name(uuid)), wanted)
                    except JailError as error:
                        last = error
                    else:
                        return
                    await asyncio.sleep(_UP_POLL)
        except KeyError:
            said = (await self._keeper.log(_name(uuid))).strip()[-_SAID:]
            raise UplinkError(f"this computer has no way out now: {said}") from None
        except TimeoutError:
            raise last from None

    async def running(self, uuid: UUID) -> int | None:
        """A pidfd of a way out that an earlier daemon opened; None without one."""
        found = (await self._keeper.list()).get(_name(uuid))
        if found is None or found.exit is not None:
            return None
        with suppress(ProcessLookupError):
            return os.pidfd_open(found.pid)
        return None

    async def close(self, uuid: UUID) -> None:
        """Close a way out; returns when nothing of it is left.

        Raises:
            UplinkError: it does not end.
        """
        name = _name(uuid)
        with suppress(KeyError):
            await self._keeper.kill(name)
            try:
                async with asyncio.timeout(_END_TIMEOUT):
                    while (await self._keeper.list())[name].exit is None:
                        await asyncio.sleep(_UP_POLL)
            except TimeoutError:
                raise UplinkError(f"passt does not end within {_END_TIMEOUT:.0f} s") from None
            await self._keeper.forget(name)


def resolvers() -> str:
    """What the host says of its name servers: a way out keeps what it found when it was opened."""
    try:
        return _RESOLVERS.read_text(errors="replace")
    except OSError:
        return ""


def _name(uuid: UUID) -> str:
    return f"{_PREFIX}{uuid}"


def _jail(uid: int | None) -> JailSpec:
    nothing_inwards = ("--no-map-gw", "-t", "none", "-u", "none", "-q", "-f", "-e")
    pasta = ("--config-net", *nothing_inwards, "-T", "none", "-U", "none", "--dns-forward", DNS)
    addresses = (*("-a", ADDRESS.partition("/")[0], "-n", "24", "-g", GATEWAY),)
    passt = (*nothing_inwards, *addresses, "-D", "none", "-M", _MAC, "-F", str(_FRAMES))
    silent = ("--no-dhcp", "--no-dhcpv6", "--no-ra")
    place = str(_RESOLVERS.resolve())
    return JailSpec(
        kind=JailKind.UPLINK,
        program=(str(PROGRAM), *pasta, "--", "/usr/bin/passt", *passt, *silent),
        descriptors=(_FRAMES,),
        uid=uid,
        read_only=((place, str(_RESOLVERS)),) if Path(place).is_file() else (),
    )
