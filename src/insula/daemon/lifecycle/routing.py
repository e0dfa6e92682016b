"""Calls that qubes ask for, each qube's in the order in which it asks.

A qube may ask for many at once: a bounded number is worked on, the rest wait, and what is beyond
the bound is refused. No qube's calls wait for another's.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from insula.daemon.lifecycle.carrying_out import Allowed
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.model.qube import Qube
from insula.protocol.errors import ReportableError
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.evaluation import Request
from insula.protocol.qrexec import MessageType, Trigger, TriggerError

AT_ONCE = 32  # calls of one qube that are worked on
MOST_WAITING = 4096  # calls of one qube that wait
MOST_TEXT = 4_194_304  # bytes of their names

log = logging.getLogger(__name__)

Decide = Callable[[Request], Awaitable[Answer | None]]
CarryOut = Callable[[Allowed], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Caller:
    """A running qube, the calls of it that wait and the tasks that work on them."""

    qube: Qube
    running: RunningQube
    waiting: deque[Trigger] = field(default_factory=deque)
    text: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Routing:
    """Takes qubes' calls, has them decided and carried out."""

    def __init__(self, decide: Decide, carry_out: CarryOut) -> None:
        self._decide, self._carry_out = decide, carry_out
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, qube: Qube, running: RunningQube) -> None:
        """Take the calls of a qube that runs."""
        running.calls.on_trigger(partial(self._take, _Caller(qube, running)))

    async def close(self) -> None:
        """Let go of calls that are not connected yet: they are refused."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, caller: _Caller, message_type: MessageType, untrusted: bytes) -> None:
        try:
            trigger = Trigger.decode(message_type, untrusted)
        except TriggerError as error:
            log.info("call refused", extra={"qube": caller.qube.name, "why": str(error)})
            caller.running.calls.refuse(error.untrusted_id)
            return
        size = len(trigger.service)
        if len(caller.waiting) >= MOST_WAITING or caller.text + size > MOST_TEXT:
            log.warning("too many calls", extra={"qube": caller.qube.name})
            caller.running.calls.refuse(trigger.request_id)
            return
        caller.waiting.append(trigger)
        caller.text += size
        if len(caller.tasks) < AT_ONCE:
            task = asyncio.create_task(self._work(caller))
            for tasks in (caller.tasks, self._tasks):
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _work(self, caller: _Caller) -> None:
        while caller.waiting and caller.running.link.open:
            trigger = caller.waiting.popleft()
            caller.text -= len(trigger.service)
            accepted = False
            try:
                accepted = await self._route(caller, trigger)
            finally:
                if not accepted:
                    _refuse(caller, trigger)

    async def _route(self, caller: _Caller, trigger: Trigger) -> bool:
        """Whether a call was connected."""
        request = Request.of(trigger.service, caller.qube.name, trigger.target, trigger.source)
        told = {
            "service": trigger.service[:200],
            "source": caller.qube.name,
            "target": trigger.target,
        }
        try:
            answer = await self._decide(request)
            if answer is None:
                log.info("call denied", extra=told)
                return False
            await self._carry_out(
                Allowed(caller.qube, caller.running, request, answer, trigger.request_id)
            )
        except ReportableError as error:
            log.warning("call not carried out", extra={**told, "why": str(error)})
            return False
        except Exception:
            log.exception("call failed", extra=told)
            return False
        log.info("call connected", extra={**told, "with": answer.target})
        return True


def _refuse(caller: _Caller, trigger: Trigger) -> None:
    try:
        caller.running.calls.refuse(trigger.request_id)
    except ReportableError as error:
        log.info("call not refused", extra={"qube": caller.qube.name, "why": str(error)})
