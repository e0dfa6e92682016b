"""The update of one qube: started if need be, updated, ended, and its snapshot made anew."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from insula.client import errors
from insula.client.app import App
from insula.client.local_socket import request
from insula.client.services import Kept, call_service
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.updating import (
    MAX_LINE,
    MAX_PACKAGES,
    SERVICE,
    Package,
    Progress,
    parse_line,
)
from insula.qrexec.sinks import HARMLESS, DescriptorSink, Sink

_LAST_WORDS = 4096  # bytes of what a qube says that are shown when it fails
_MOST_SAID = 64 * 1024 * 1024
Tell = Callable[[str, int | None], object]  # a phase, and how many per cent of it


@dataclass(slots=True)
class Outcome:
    """What became of one qube."""

    qube: str
    packages: list[Package] = field(default_factory=list)
    error: str | None = None
    still_runs: bool = False

    @property
    def status(self) -> str:
        if self.error is not None:
            return "failed"
        return "updated" if self.packages else "no-updates"

    def as_json(self) -> dict[str, object]:
        packages = [{"name": one.name, "old": one.old, "new": one.new} for one in self.packages]
        return {
            "qube": self.qube,
            "status": self.status,
            "packages": packages,
            "error": self.error,
            "still_runs": self.still_runs,
        }


def update(name: str, tell: Tell, *, show_output: bool, snapshot: bool) -> Outcome:
    """Update a qube; what goes wrong is in the outcome.

    show_output: what its package manager says goes to standard error. snapshot: wait until qubes
    of it start as fast as before.

    Raises:
        DaemonNotRunningError: the daemon is gone.
    """
    outcome = Outcome(name)
    qube = App().domains.known(name)
    started = qube.is_halted()
    try:
        if started:
            tell("starting", None)
            qube.start()
        try:
            _call(outcome, tell, show_output=show_output)
        finally:
            if started:
                tell("shutting down", None)
                qube.shutdown(wait=True)
        outcome.still_runs = not started
        if started and snapshot and outcome.packages:
            tell("making its snapshot", None)
            request("golden", timeout=None, qube=name)
    except errors.DaemonNotRunningError:
        raise
    except ReportableError as error:
        outcome.error = f"{error} {error.hint}" if error.hint else str(error)
    return outcome


def _call(outcome: Outcome, tell: Tell, *, show_output: bool) -> None:
    said = _Lines(outcome.packages, tell)
    problems: Sink = DescriptorSink(2, table=HARMLESS) if show_output else _Last()
    tell("updating", 0)
    code = call_service(outcome.qube, SERVICE, autostart=False, output=said, errors=problems)
    if said.untrusted_wrong is not None:
        raise ReportableError(f"{outcome.qube} says what it should not: {said.untrusted_wrong}")
    if code == 127:
        raise ReportableError(f"{outcome.qube} cannot be updated by this: it has no {SERVICE}")
    if code:
        words = problems.text() if isinstance(problems, _Last) else ""
        raise ReportableError(f"the update failed (status {code}){os.linesep * bool(words)}{words}")


class _Lines(Sink):
    """Reads what the service says. What is wrong with it is kept, and ends the call."""

    def __init__(self, packages: list[Package], tell: Tell) -> None:
        self._packages, self._tell = packages, tell
        self._held = bytearray()
        self.untrusted_wrong: str | None = None

    def write(self, data: memoryview) -> int:
        self._held += data
        try:
            while (end := self._held.find(b"\n")) >= 0:
                self._take(bytes(self._held[:end]))
                del self._held[: end + 1]
            if len(self._held) > MAX_LINE:
                raise ProtocolError("a line that is too long")
        except ProtocolError as error:
            self.untrusted_wrong = str(error)
            self.broken = True
        return len(data)

    def _take(self, untrusted: bytes) -> None:
        line = parse_line(untrusted)
        if isinstance(line, Progress):
            self._tell("updating", line.percent)
        elif len(self._packages) >= MAX_PACKAGES:
            raise ProtocolError("too many packages")
        else:
            self._packages.append(line)


class _Last(Kept):
    """Keeps the end of what comes, made harmless for a terminal."""

    def __init__(self) -> None:
        super().__init__(_MOST_SAID)

    def write(self, data: memoryview) -> int:
        self.data += data
        del self.data[:-_LAST_WORDS]
        return len(data)

    def text(self) -> str:
        """The last lines."""
        lines = bytes(self.data).translate(HARMLESS).decode("ascii").splitlines()
        return "\n".join(lines[-10:])
