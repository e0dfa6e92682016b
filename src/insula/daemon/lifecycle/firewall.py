"""Firewall rules of qubes: kept, told of, and gone when their time is over."""

import asyncio
import logging
import time
from collections.abc import Sequence
from uuid import UUID

from insula.daemon.lifecycle.world import World
from insula.daemon.model.errors import QubeNotFoundError
from insula.daemon.model.qube import Qube
from insula.protocol.admin import Event
from insula.protocol.errors import ReportableError
from insula.protocol.firewall import DEFAULT, Rule, parse_rule

CHANGED = "firewall-changed"
_LONGEST_WAIT = 24 * 3600.0  # seconds; clocks may be set meanwhile

log = logging.getLogger(__name__)


class Firewall:
    """The rules of all qubes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._timers: dict[UUID, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = False

    def start(self) -> None:
        """Look after rules that were set before this daemon began."""
        for qube in self._world.system.qubes.values():
            self._schedule(qube)
        self._world.events.add(self._happened)
        self._watching = True

    async def close(self) -> None:
        """Look after them no more."""
        if self._watching:
            self._world.events.remove(self._happened)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def rules(self, qube: Qube) -> list[Rule]:
        """The rules that hold now."""
        if qube.firewall is None:
            return [parse_rule(DEFAULT)]
        now = time.time()
        return [rule for rule in map(parse_rule, qube.firewall) if not rule.expired(now)]

    async def set(self, qube: Qube, rules: Sequence[Rule]) -> None:
        """Replace all rules of a qube; none is that everything is dropped.

        Raises:
            ReportableError: they could not be kept; the former hold.
        """
        now = time.time()
        kept = tuple(str(rule) for rule in rules if not rule.expired(now))
        async with self._world.editing() as edit:
            if qube.uuid not in edit.system.qubes:
                raise QubeNotFoundError(qube.name)
            edit.touch(qube).firewall = kept
            edit.tell(qube, CHANGED)
        self._schedule(qube)

    def reload(self, qube: Qube) -> None:
        """Have the rules enforced anew."""
        self._world.events.tell(qube, CHANGED)

    def _happened(self, event: Event) -> None:
        name = event.fields.get("vm", "")
        if event.name == "domain-add" and self._world.system.has_name(name):
            self._schedule(self._world.system.named(name))  # It may have its template's rules.

    def _schedule(self, qube: Qube) -> None:
        """Be called when the first of a qube's rules expires."""
        if (timer := self._timers.pop(qube.uuid, None)) is not None:
            timer.cancel()
        ends = [rule.expire for rule in map(parse_rule, qube.firewall or ()) if rule.expire]
        if not ends:
            return
        wait = min(max(min(ends) - time.time(), 0.0), _LONGEST_WAIT)
        loop = asyncio.get_running_loop()
        self._timers[qube.uuid] = loop.call_later(wait, self._expire, qube.uuid)

    def _expire(self, uuid: UUID) -> None:
        del self._timers[uuid]
        qube = self._world.system.find(uuid)
        if qube is None or qube.firewall is None:
            return
        rules = self.rules(qube)
        if len(rules) == len(qube.firewall):
            self._schedule(qube)  # The clock was set, or it is a day and not yet the end.
            return
        task = asyncio.create_task(self._drop(qube, rules))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drop(self, qube: Qube, rules: list[Rule]) -> None:
        try:
            await self.set(qube, rules)
        except ReportableError as error:
            log.warning("expired rules are kept", extra={"qube": qube.name, "why": str(error)})
