"""The program qubes-firewall (network-firewall.md section 8): what it waits for, and its end."""

import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass

from insula.guest import systemd
from insula.guest.commands.qubesdb import Database
from insula.guest.firewall import hooks
from insula.guest.firewall.enforcing import CONNECTED, RULES, Firewall, Times
from insula.guest.firewall.names import Name, Names
from insula.guest.firewall.tables import NotAppliedError
from insula.guest.firewall.telling import complain
from insula.protocol.errors import ProtocolError

_CONNECT_TIMEOUT = 60.0  # seconds
_PAUSE = 0.5  # between two tries


@dataclass(frozen=True, slots=True)
class _Changed:
    """A key of the database was written or removed."""

    key: str


@dataclass(frozen=True, slots=True)
class _Answered:
    name: Name
    addresses: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class _Lost:
    """A connection to the database is over."""

    database: Database


_Event = _Changed | _Answered | _Lost | signal.Signals


class _Program:
    """Takes one thing after the other: changes, answers about names, signals."""

    def __init__(self, times: Times) -> None:
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda which, _: self._events.put(signal.Signals(which)))
        names = Names(lambda name, found: self._events.put(_Answered(name, found)))
        self._firewall = Firewall(names.ask, complain, times)
        self._watched: Database | None = None

    def run(self) -> None:
        """Enforce rules until told to end.

        Raises:
            NotAppliedError, OSError: they cannot be enforced any more, and stay as they were.
        """
        self._firewall.open_tables()
        # Hooks may read the database, which whoever waits for this unit may have to serve.
        systemd.tell("READY=1")
        hooks.run()
        self._connect()
        while True:
            events = self._next()
            if signal.SIGTERM in events or signal.SIGINT in events:
                systemd.tell("STOPPING=1")
                self._firewall.close_tables()
                return
            try:
                self._take(events)
            except ConnectionError:
                self._connect()
                systemd.tell("READY=1")  # Perhaps it was told of a reload.

    def _next(self) -> list[_Event]:
        """All that came; waits until something did, or there is something to do without."""
        events: list[_Event] = []
        try:
            events.append(self._events.get(timeout=self._firewall.patience()))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def _take(self, events: list[_Event]) -> None:
        changed: dict[str, None] = {}
        lost = False
        for event in events:
            match event:
                case _Answered(name, addresses):
                    self._firewall.answered(name, addresses)
                case _Changed(key):
                    changed[key] = None
                case _Lost(database):
                    lost |= database is self._watched
        if lost:
            raise ConnectionError
        if signal.SIGHUP in events:
            systemd.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._look_at_all()
            systemd.tell("READY=1")
        else:
            for key in CONNECTED.keys() & changed.keys():
                self._firewall.connected(key)
            # What is below a client's address is followed by that itself.
            named = [key.removeprefix(RULES) for key in changed if key.startswith(RULES)]
            self._firewall.look_at([one for one in named if "/" not in one])
        self._firewall.go_on()

    def _look_at_all(self) -> None:
        self._firewall.look_at_all()
        for key in CONNECTED:
            self._firewall.connected(key)

    def _connect(self) -> None:
        """Begin to hear of changes, and take over what there is.

        Raises:
            OSError: nobody serves the database.
        """
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                watched = Database()
                for prefix in (RULES, *CONNECTED):
                    watched.watch(prefix)
                self._firewall.database = Database()
                self._watched = watched
                threading.Thread(target=self._watch, args=(watched,), daemon=True).start()
                self._look_at_all()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def _watch(self, database: Database) -> None:
        """Take changes as they come: one who reads late is not told any more."""
        try:
            while True:
                self._events.put(_Changed(database.next_event().decode("ascii", "replace")))
        except (OSError, ProtocolError):
            self._events.put(_Lost(database))


def main(times: Times | None = None) -> int:
    """Run as the unit qubes-firewall.service."""
    try:
        _Program(times or Times()).run()
    except (NotAppliedError, OSError, ProtocolError) as error:
        print(f"qubes-firewall: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
