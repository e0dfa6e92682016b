"""Calls that wait until the user's session is up (qrexec-wire.md section 6.3)."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from insula.protocol.command import ServiceCall
from insula.qrexec.loop import Loop
from insula.qrexec.programs import Searches
from insula.qrexec.services import BrokenServiceError, find_service

_SERVICE = "qubes.WaitForSession"
_MOST_WAITING = 256


class SessionGate:
    """Holds calls back until one run of the service that waits for the session is over."""

    def __init__(self, loop: Loop, searches: Searches) -> None:
        self._loop, self._searches = loop, searches
        self._waiting: list[Callable[[], None]] = []
        self._running = False

    def wait(self, user: str, source: str, go_on: Callable[[], None]) -> None:
        """Call go_on once the session is up, or cannot be waited for."""
        if len(self._waiting) >= _MOST_WAITING:
            go_on()
            return
        self._waiting.append(go_on)
        if not self._running and not self._start(user, source):
            self._over()

    def _start(self, user: str, source: str) -> bool:
        call = ServiceCall(_SERVICE, None, source, f"{_SERVICE} {source}")
        try:
            found = find_service(call, self._searches.services)
            if found is None or found.kind != "program":
                return False
            process = subprocess.Popen(
                [found.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "QREXEC_REMOTE_DOMAIN": source},
            )
        except (BrokenServiceError, OSError) as error:
            print(f"{_SERVICE}: {error}", file=sys.stderr)
            return False
        process.returncode = 0  # The loop reaps it.
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as told:
            told.write(f"{user}\n".encode())
        self._running = True
        self._loop.on_exit(process.pid, lambda _status: self._over())
        return True

    def _over(self) -> None:
        self._running = False
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()
