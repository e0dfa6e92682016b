"""Asking the person about a call, and telling of calls (qrexec-wire.md section 11.6)."""

import asyncio
import logging
from collections import Counter
from pathlib import Path

from insula.daemon.lifecycle.asking import ASK_TIMEOUT, exchange
from insula.daemon.model.described import icons
from insula.daemon.model.system import System
from insula.protocol.policy.evaluation import Request, Verdict
from insula.protocol.policy_agent import chosen, encode_ask, encode_notify

SOCKET_NAME = "policy-agent.sock"
MOST_ASKED = 4  # questions on behalf of one qube that wait for an answer
MOST_TOLD = 4  # messages about calls of one qube that are on their way
_NOTIFY_TIMEOUT = 10.0  # seconds

log = logging.getLogger(__name__)


class PolicyAgent:
    """The program in the person's session, by its socket."""

    def __init__(self, system: System, run: Path) -> None:
        self._system, self._path = system, run / SOCKET_NAME
        self._asked: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._telling: set[asyncio.Task[None]] = set()

    async def ask(self, verdict: Verdict, request: Request) -> str | None:
        """Which of the targets that a verdict offers is chosen; None: the call is refused."""
        if self._asked[request.source] >= MOST_ASKED:
            log.warning("too many questions", extra={"qube": request.source})
            return None
        self._asked[request.source] += 1
        asked = encode_ask(verdict, request, icons(self._system))
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                untrusted = await exchange(self._path, asked)
        except (OSError, TimeoutError) as error:
            log.warning("nobody answers", extra={"service": request.service, "why": repr(error)})
            return None
        finally:
            _less(self._asked, request.source)
        target = chosen(untrusted)
        return target if target in verdict.targets else None

    def tell(self, resolution: str, request: Request, verdict: Verdict) -> None:
        """Tell the person what became of a call, if anybody listens."""
        if self._told[request.source] >= MOST_TOLD:
            log.info("too much to tell", extra={"qube": request.source})
            return
        self._told[request.source] += 1
        message = encode_notify(resolution, verdict, request)
        task = asyncio.create_task(self._notify(message, request.source))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _notify(self, message: bytes, source: str) -> None:
        try:
            async with asyncio.timeout(_NOTIFY_TIMEOUT):
                await exchange(self._path, message)
        except (OSError, TimeoutError) as error:
            log.info("nobody is told", extra={"qube": source, "why": repr(error)})
        finally:
            _less(self._told, source)

    async def close(self) -> None:
        """Stop telling."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)


def _less(counted: Counter[str], name: str) -> None:
    counted[name] -= 1
    if not counted[name]:
        del counted[name]
