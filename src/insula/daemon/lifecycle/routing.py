"""Calls that qubes ask for, each qube's in the order in which it asks.

A qube may ask for many at once: a bounded number is worked on, the rest wait, and what is beyond
the bound is refused. No qube's calls wait for another's, and those to one target not for those to
another: it may keep its callers waiting.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from insula.daemon.lifecycle.carrying_out import Allowed
from insula.daemon.lifecycle.lines import Line
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.model.qube import Qube
from insula.daemon.rpc.pace import SLICE
from insula.protocol.errors import ReportableError
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.evaluation import Request
from insula.protocol.policy.tokens import DISPOSABLE_OF
from insula.protocol.qrexec import MessageType, Trigger, TriggerError

DECIDED_AT_ONCE = 32  # calls of one qube; some of them wait for the person
CONNECTED_AT_ONCE = 16  # calls of one qube to another
STARTED_AT_ONCE = 4  # disposables for one qube's calls
MOST_WAITING = 4096  # calls of one qube
MOST_TEXT = 4_194_304  # bytes of their names
# Seconds of the daemon's time that are charged for a call, whatever it took: one that is connected
# is held back by what it connects with, one that is refused by nothing else.
CONNECTED_COST, REFUSED_COST = 0.0001, 0.0003

log = logging.getLogger(__name__)

Decide = Callable[[Request], Awaitable[Answer | None]]
CarryOut = Callable[[Allowed], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Caller:
    """A running qube and its calls that are not connected yet: those of which an answer is due.

    text: bytes of their names. turn: whose decision is next. spent: seconds on decisions, since
    others had their turn.
    """

    qube: Qube
    running: RunningQube
    calls: int = 0
    text: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    spent: float = 0.0
    lines: dict[str, Line["_Call"]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Call:
    """A call of a caller, and what was allowed of it."""

    caller: _Caller
    trigger: Trigger
    allowed: Allowed | None = None

    @property
    def told(self) -> dict[str, str]:
        """What the log says of it."""
        return {
            "service": self.trigger.service[:200],
            "source": self.caller.qube.name,
            "target": self.trigger.target,
        }


class Routing:
    """Takes qubes' calls, has them decided and carried out."""

    def __init__(self, decide: Decide, carry_out: CarryOut) -> None:
        self._decide, self._carry_out = decide, carry_out
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, qube: Qube, running: RunningQube) -> None:
        """Take the calls of a qube that runs."""
        line = Line(DECIDED_AT_ONCE, self._judge, self._tasks)
        running.calls.on_trigger(partial(self._take, _Caller(qube, running), line))

    async def close(self) -> None:
        """Let go of calls that are not connected yet: they are refused."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(
        self, caller: _Caller, line: Line[_Call], message_type: MessageType, untrusted: bytes
    ) -> None:
        try:
            trigger = Trigger.decode(message_type, untrusted)
        except TriggerError as error:
            log.info("call refused", extra={"qube": caller.qube.name, "why": str(error)})
            _refuse(caller, error.untrusted_id)
            return
        size = len(trigger.service)
        if caller.calls >= MOST_WAITING or caller.text + size > MOST_TEXT:
            log.warning("too many calls", extra={"qube": caller.qube.name})
            _refuse(caller, trigger.request_id)
            return
        caller.calls += 1
        caller.text += size
        line.put(_Call(caller, trigger))

    async def _judge(self, call: _Call) -> None:
        """Have a call decided; one that is allowed goes on in the line of its target."""
        caller, goes_on = call.caller, False
        try:
            async with caller.turn:
                if caller.spent >= SLICE:
                    await asyncio.sleep(0)
                    caller.spent = 0.0
            goes_on = caller.running.link.open and await self._is_allowed(call)
        finally:
            if not goes_on:
                _done(call, connected=False)
        if call.allowed is not None:
            self._line(caller, call.allowed.answer.target).put(call)

    async def _is_allowed(self, call: _Call) -> bool:
        caller, trigger = call.caller, call.trigger
        request = Request.of(trigger.service, caller.qube.name, trigger.target, trigger.source)
        begun = time.thread_time()
        try:
            answer = await self._decide(request)
        except ReportableError as error:
            log.warning("call not decided", extra={**call.told, "why": str(error)})
            return False
        except Exception:
            log.exception("call not decided", extra=call.told)
            return False
        finally:
            caller.spent += time.thread_time() - begun
        if answer is None:
            log.info("call denied", extra=call.told)
            return False
        call.allowed = Allowed(caller.qube, caller.running, request, answer, trigger.request_id)
        return True

    def _line(self, caller: _Caller, target: str) -> Line[_Call]:
        """Where calls to a target wait for their turn."""
        if target not in caller.lines:
            for other in [name for name, line in caller.lines.items() if line.empty]:
                del caller.lines[other]
            disposable = target.startswith(DISPOSABLE_OF)
            at_once = STARTED_AT_ONCE if disposable else CONNECTED_AT_ONCE
            caller.lines[target] = Line(at_once, self._connect, self._tasks)
        return caller.lines[target]

    async def _connect(self, call: _Call) -> None:
        connected = False
        try:
            connected = call.caller.running.link.open and await self._is_carried_out(call)
        finally:
            _done(call, connected=connected)

    async def _is_carried_out(self, call: _Call) -> bool:
        assert call.allowed is not None
        try:
            await self._carry_out(call.allowed)
        except ReportableError as error:
            log.warning("call not carried out", extra={**call.told, "why": str(error)})
            return False
        except Exception:
            log.exception("call failed", extra=call.told)
            return False
        log.info("call connected", extra={**call.told, "with": call.allowed.answer.target})
        return True


def _done(call: _Call, *, connected: bool) -> None:
    """Forget a call; one that is not connected is refused."""
    call.caller.calls -= 1
    call.caller.text -= len(call.trigger.service)
    call.caller.running.link.pace.charge(CONNECTED_COST if connected else REFUSED_COST)
    if not connected:
        _refuse(call.caller, call.trigger.request_id)


def _refuse(caller: _Caller, request_id: bytes) -> None:
    try:
        caller.running.calls.refuse(request_id)
    except ReportableError as error:
        log.info("call not refused", extra={"qube": caller.qube.name, "why": str(error)})
