"""The network of a qube: a thread that sets links up, so that nothing else waits for it."""

import errno
import os
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from insula.protocol.control import ControlType
from insula.protocol.links import Link, LinkStatus
from insula.qrexec.loop import READ, Loop

_PATIENCE = 10.0  # seconds in which a link's card has to appear
_LOOK = 0.02  # seconds between looks for one
_CALM = 0.5  # seconds without work before what is not urgent is done

Answer = Callable[[ControlType, LinkStatus], None]


class Does(Protocol):
    """Configures cards."""

    def is_there(self, link: Link) -> bool: ...

    def set_up(self, link: Link) -> None: ...

    def take_down(self, number: int) -> None: ...

    def settle(self) -> None: ...


class Links:
    """Takes what the daemon says of links. make: called once, in the thread, before the first.

    answer: called in the loop for each link that is up, down or failed.
    """

    def __init__(self, loop: Loop, make: Callable[[], Does], answer: Answer) -> None:
        self._loop = loop
        self._make = make
        self._answer = answer
        self._jobs: queue.SimpleQueue[Link | int] = queue.SimpleQueue()
        self._answers: deque[tuple[ControlType, LinkStatus]] = deque()
        self._wake = -1

    def link(self, link: Link) -> None:
        """Set a link up, once its card is there."""
        self._put(link)

    def unlink(self, number: int) -> None:
        """Take a link down."""
        self._put(number)

    def _put(self, job: Link | int) -> None:
        if self._wake < 0:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._loop.add(self._wake, READ, lambda _events: self._tell())
            threading.Thread(target=self._work, name="links", daemon=True).start()
        self._jobs.put(job)

    def _tell(self) -> None:
        os.eventfd_read(self._wake)
        while self._answers:
            self._answer(*self._answers.popleft())

    def _work(self) -> None:
        worker = _Worker(self._make(), self._report)
        while True:
            step: Callable[[], None] = worker.look
            with suppress(queue.Empty):
                step = partial(worker.take, self._jobs.get(timeout=worker.patience))
            try:
                step()
            except Exception:
                traceback.print_exc()  # Other links are not to suffer from it.

    def _report(self, kind: ControlType, status: LinkStatus) -> None:
        self._answers.append((kind, status))
        os.eventfd_write(self._wake, 1)


class _Worker:
    """What the thread does. patience: seconds after which it wants to look again, or None."""

    def __init__(self, does: Does, report: Answer) -> None:
        self._does = does
        self._report = report
        self._waiting: dict[int, tuple[Link, float]] = {}
        self.patience: float | None = None

    def take(self, job: Link | int) -> None:
        if isinstance(job, Link):
            self._waiting[job.number] = (job, time.monotonic() + _PATIENCE)
        else:
            if self._waiting.pop(job, None) is not None:
                self._report(
                    ControlType.LINKED, LinkStatus(job, errno.ECANCELED, "unlinked meanwhile")
                )
            self._try(ControlType.UNLINKED, job, partial(self._does.take_down, job))
        self._set_up_those_there()

    def look(self) -> None:
        """Nothing came for a while."""
        if self._waiting:
            self._set_up_those_there()
        else:
            self.patience = None
            self._does.settle()

    def _set_up_those_there(self) -> None:
        for number, (link, deadline) in tuple(self._waiting.items()):
            if self._does.is_there(link):
                del self._waiting[number]
                self._try(ControlType.LINKED, number, partial(self._does.set_up, link))
            elif time.monotonic() > deadline:
                del self._waiting[number]
                text = f"no card {link.mac} appeared"
                self._report(ControlType.LINKED, LinkStatus(number, errno.ENODEV, text))
        self.patience = _LOOK if self._waiting else _CALM

    def _try(self, kind: ControlType, number: int, do: Callable[[], None]) -> None:
        status = LinkStatus(number)
        try:
            do()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            print(f"link {number}: {text}", flush=True)
            status = LinkStatus(number, getattr(error, "errno", None) or errno.EIO, text)
        self._report(kind, status)
