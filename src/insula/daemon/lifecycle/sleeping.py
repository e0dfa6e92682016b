"""Qubes put to sleep, one or with the host (admin-api.md sections 4.13 and 8.3).

A qube sleeps as a paused one does; what distinguishes it is that its programs were told before,
and are told again when it wakes.
"""

import asyncio
import logging

from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.preloading import Preloading
from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import NotRunningError, QubeStateError, RefusedError
from insula.daemon.model.qube import PowerState, Qube
from insula.daemon.rpc.services import call_service
from insula.protocol.errors import ReportableError

TIMEOUT = 60.0  # seconds that a qube's programs have to get ready
_PAUSED_BEFORE = "previously-paused.list"

log = logging.getLogger(__name__)


class Sleeping:
    """Puts qubes to sleep and wakes them."""

    def __init__(self, world: World, power: Power, preloading: Preloading) -> None:
        self._world = world
        self._power = power
        self._preloading = preloading

    async def suspend(self, qube: Qube) -> None:
        """Put a running qube to sleep.

        Raises:
            QubeStateError: it is no machine of ours, or does not run.
        """
        if not qube.klass.is_machine:
            raise QubeStateError(f"Qube {qube.name} is no virtual machine of ours to be suspended")
        if qube.power is not PowerState.RUNNING:
            raise NotRunningError(qube.name)
        await self._tell(qube, "qubes.SuspendPre")
        await self._power.pause(qube, PowerState.SUSPENDED)

    async def resume(self, qube: Qube) -> None:
        """Wake a qube that sleeps; one that is paused goes on.

        Raises:
            NotPausedError: it does neither.
        """
        if qube.power is not PowerState.SUSPENDED:
            await self._power.unpause(qube)
            return
        await self._wake(qube)
        await self._tell(qube, "qubes.SuspendPost")

    async def _wake(self, qube: Qube) -> None:
        await self._power.unpause(qube, PowerState.SUSPENDED)
        self._world.events.tell(qube, "domain-resumed")

    async def suspend_all(self) -> None:
        """The host is about to sleep: so are all qubes, and those that are still stay so.

        Raises:
            RefusedError: some could not be; which and why.
        """
        await self._preloading.sleep()
        qubes = self._running()
        before = sorted(qube.name for qube in qubes if qube.standing_still)
        (self._world.run / _PAUSED_BEFORE).write_text("".join(f"{name}\n" for name in before))
        awake = [qube for qube in qubes if qube.power is PowerState.RUNNING]
        # All are told before the first sleeps: some need others to get ready.
        await asyncio.gather(*(self._tell(qube, "qubes.SuspendPreAll") for qube in awake))
        pauses = (self._power.pause(qube, PowerState.SUSPENDED) for qube in awake)
        _raise_all(awake, await asyncio.gather(*pauses, return_exceptions=True))

    async def resume_all(self) -> None:
        """The host woke up: so do all qubes that slept because it did.

        Raises:
            RefusedError: some could not be woken; which and why.
        """
        self._preloading.wake()
        place = self._world.run / _PAUSED_BEFORE
        before = set(place.read_text().splitlines()) if place.exists() else set()
        place.unlink(missing_ok=True)
        asleep = [
            qube
            for qube in self._running()
            if qube.power is PowerState.SUSPENDED and qube.name not in before
        ]
        wakes = await asyncio.gather(*map(self._wake, asleep), return_exceptions=True)
        woken = [qube for qube, end in zip(asleep, wakes, strict=True) if end is None]
        await asyncio.gather(*(self._tell(qube, "qubes.SuspendPostAll") for qube in woken))
        _raise_all(asleep, wakes)

    def _running(self) -> list[Qube]:
        found = (self._world.system.find(uuid) for uuid in tuple(self._world.running))
        return [qube for qube in found if qube is not None]

    async def _tell(self, qube: Qube, service: str) -> None:
        """Have a qube's programs told; whether they take notice is theirs."""
        running = self._world.running.get(qube.uuid)
        if running is None or not self._world.system.feature(qube, "qrexec"):
            return
        try:
            done = await call_service(running.calls, service, timeout=TIMEOUT)
        except ReportableError as error:
            log.warning("service failed", extra={"qube": qube.name, "why": str(error)})
            return
        if done.code:
            failed = {"qube": qube.name, "service": service, "code": done.code}
            log.warning("service failed", extra=failed)


def _raise_all(qubes: list[Qube], ends: list[BaseException | None]) -> None:
    """One error for all that went wrong."""
    failures = []
    for qube, end in zip(qubes, ends, strict=True):
        if isinstance(end, ReportableError):
            failures.append(f"{qube.name}: {end}")
        elif end is not None:
            raise end
    if failures:
        raise RefusedError("; ".join(failures))
