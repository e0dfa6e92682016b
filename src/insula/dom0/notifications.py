"""The service qubes.Notifications: shows notices of a qube's programs to the person.

The host's own notification service shows them, with the qube's name and the colour of its label.
What a qube says is text alone, cleaned; how often it says something is limited, and how many of its
notices are there at once. Only one call of a qube is served at a time.
"""

import fcntl
import os
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from insula.client import instance
from insula.client.app import App
from insula.menus.host import label_icon
from insula.protocol.dbus import Kind, Message, Variant
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.notices import Acted, Close, Closed, Show, Urgency, take_of_qube
from insula.qrexec.bus import Bus

BUS_FILE = "session.bus"  # where the session says which bus it has
_NAME, _PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
_MATCH = f"type='signal',interface='{_NAME}',path='{_PATH}'"
_BURST = 4.0  # notices at once
_EVERY = 2.0  # seconds for one more
_MOST_OPEN = 8
_SHORTEST, _LONGEST = 1000, 30_000  # ms
_EXPIRED, _UNDEFINED = 1, 4  # why a notice is gone
_CHUNK = 65_536
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass
class _Open:
    """A notice on its way or shown. host: its number there, once known; later: what is to be there.

    A notice can take another's place only once that one's number is known.
    """

    number: int
    host: int = 0
    later: Show | None = None
    to_be_closed: bool = False


@dataclass
class Rate:
    """How often something may be done: some at once, then one in a while."""

    now: Callable[[], float] = time.monotonic
    _left: float = _BURST
    _at: float = field(default=0.0)

    def may(self) -> bool:
        """Whether it may be done now; then it counts as done."""
        self._look()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def all_after(self) -> float:
        """Seconds until all may be done at once again."""
        self._look()
        return (_BURST - self._left) * _EVERY

    def _look(self) -> None:
        now = self.now()
        self._left = min(_BURST, self._left + (now - self._at) / _EVERY)
        self._at = now


class Notices:
    """Those of one qube. say: sends to the qube."""

    def __init__(
        self, qube: str, icon: Path, bus: Bus, say: Callable[[bytes], object], rate: Rate
    ) -> None:
        self._qube, self._icon, self._bus, self._say, self._rate = qube, icon, bus, say, rate
        self._open: dict[int, _Open] = {}  # by the qube's number
        self._asked: dict[int, _Open] = {}  # by the serial of our call
        self._dropped = 0

    def take(self, message: Show | Close) -> None:
        """Do what the qube says."""
        if isinstance(message, Close):
            if (one := self._open.get(message.number)) is not None:
                self._close(one)
            return
        if not self._rate.may():
            self._dropped += 1
            if message.number not in self._open:
                self._say(Closed(message.number, _UNDEFINED).encode())
            return
        one = self._open.setdefault(message.number, _Open(message.number))
        one.to_be_closed = False
        if not one.host and one in self._asked.values():
            one.later = message
        else:
            self._show(message, one)
        while len(self._open) > _MOST_OPEN:
            self._close(next(iter(self._open.values())), forget=True)

    def hear(self, message: Message) -> None:
        """Learn what the host's service says."""
        if message.kind in (Kind.RETURN, Kind.ERROR):
            self._answered(message)
        elif message.kind == Kind.SIGNAL and message.interface == _NAME:
            by_host = {one.host: one for one in self._open.values() if one.host}
            match message.member, message.body:
                case "NotificationClosed", (number, reason) if number in by_host:
                    self._gone(by_host[number], reason)
                case "ActionInvoked", (number, key) if number in by_host and key.isdigit():
                    self._say(Acted(by_host[number].number, int(key)).encode())

    def end(self) -> None:
        """Take away what is shown: nobody would hear what becomes of it."""
        for one in tuple(self._open.values()):
            self._close(one, forget=True)

    def _show(self, message: Show, one: _Open) -> None:
        self._asked[self._ask("Notify", "susssasa{sv}i", *self._shown(message, one))] = one

    def _shown(self, message: Show, one: _Open) -> tuple[Any, ...]:
        body = message.body
        if self._dropped:
            body += f"\n({self._dropped} more of this qube were not shown)"
            self._dropped = 0
        timeout = message.timeout
        if timeout >= 0:
            timeout = min(max(timeout or _LONGEST, _SHORTEST), _LONGEST)
        actions = [part for pair in enumerate(message.actions) for part in (str(pair[0]), pair[1])]
        # One that stays until it is answered, and in front of all others, is for the host to have.
        hints = {"urgency": Variant("y", min(message.urgency, Urgency.NORMAL))}
        summary = f"{self._qube}: {message.summary}"
        text = "".join(_MARKUP.get(letter, letter) for letter in body)
        return self._qube, one.host, str(self._icon), summary, text, actions, hints, timeout

    def _answered(self, message: Message) -> None:
        one = self._asked.pop(message.reply_serial, None)
        if one is None:
            return
        if message.kind == Kind.ERROR or message.signature != "u":
            self._gone(one, _UNDEFINED)
            return
        (one.host,) = message.body
        if one.to_be_closed:
            self._close(one)
        elif one.later is not None:
            self._show(one.later, one)
            one.later = None

    def _close(self, one: _Open, *, forget: bool = False) -> None:
        one.to_be_closed = True
        if one.host:
            self._ask("CloseNotification", "u", one.host)
        if forget:
            self._gone(one, _EXPIRED)

    def _gone(self, one: _Open, reason: int) -> None:
        if self._open.pop(one.number, None) is not None:
            self._say(
                Closed(one.number, reason if 1 <= reason <= _UNDEFINED else _UNDEFINED).encode()
            )

    def _ask(self, member: str, signature: str, *body: Any) -> int:
        return self._bus.send(
            Message(
                kind=Kind.CALL, path=_PATH, interface=_NAME, member=member, destination=_NAME,
                signature=signature, body=body,
            )
        )  # fmt: skip


def serve(qube: str, bus: Bus, source: int, sink: int, rate: Rate) -> None:
    """Serve one call until the qube ends it.

    Raises:
        OSError, ProtocolError: an end is gone, or the qube broke the rules.
    """
    found = App().domains[qube]
    icon = label_icon(str(found.label), App())
    bus.call("Hello")
    bus.call("AddMatch", "s", _MATCH)
    notices = Notices(qube, icon, bus, lambda data: _write(sink, data), rate)
    untrusted = bytearray()
    try:
        while True:
            ready, _, _ = select.select([source, bus.socket.fileno()], [], [])
            if bus.socket.fileno() in ready:
                for message in bus.read():
                    notices.hear(message)
            if source in ready:
                data = os.read(source, _CHUNK)
                if not data:
                    return
                untrusted += data
                while (said := take_of_qube(untrusted)) is not None:
                    notices.take(said)
    finally:
        notices.end()


def _write(sink: int, data: bytes) -> None:
    """Tell the qube; one that does not listen misses it."""
    _, ready, _ = select.select([], [sink], [], 0)
    if ready:
        os.write(sink, data)


def main() -> int:
    """Serve one call."""
    qube = os.environ.get("QREXEC_REMOTE_DOMAIN", "")
    run = instance.run()
    lock = os.open(run / f"notices-{qube}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        bus = Bus((run / BUS_FILE).read_text().strip())
    except BlockingIOError:
        return _told(f"notices of {qube} are shown already")
    except (OSError, ProtocolError) as error:
        return _told(f"nobody shows notices: {error}")
    rate = Rate()
    try:
        serve(qube, bus, 0, 1, rate)
    except (OSError, ProtocolError, ReportableError) as error:
        return _told(str(error))
    finally:
        os.close(1)
        time.sleep(rate.all_after())  # Else it would begin anew, with another call.
        (run / f"notices-{qube}.lock").unlink(missing_ok=True)
    return 0


def _told(text: str) -> int:
    sys.stderr.write(f"qubes.Notifications: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
