"""The notification service of a qube's session: what programs want to say goes to dom0.

The session's bus starts it when the first program has something to say; it ends when nobody had
for a while.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from insula.guest.commands.calling import call_words
from insula.protocol.dbus import Kind, Message, Variant
from insula.protocol.errors import ProtocolError
from insula.protocol.notices import SERVICE, Acted, Close, Closed, Show, Urgency, take_of_dom0
from insula.qrexec.bus import Bus

NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
_TARGET = "@default"
_DO_NOT_QUEUE = 4
_IDLE = 60.0  # seconds
_PAUSE = 5.0  # seconds after a call that failed
_UNDEFINED = 4  # why a notice is gone
_CHUNK = 65_536
_MOST_OPEN = 100
_UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
_INVALID = "org.freedesktop.DBus.Error.InvalidArgs"


class Call:
    """The call to dom0, while it lasts."""

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._received = bytearray()
        assert self._process.stdout is not None
        self.descriptor = self._process.stdout.fileno()

    def send(self, message: bytes) -> None:
        """Send what dom0 is to know; when it does not hear, the end shows in what is read."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(message)
            self._process.stdin.flush()

    def read(self) -> list[Closed | Acted]:
        """The messages that are whole once more has come.

        Raises:
            OSError, ProtocolError: the call is over.
        """
        data = os.read(self.descriptor, _CHUNK)
        if not data:
            raise ConnectionResetError("the call is over")
        self._received += data
        found = []
        while (message := take_of_dom0(self._received)) is not None:
            found.append(message)
        return found

    def end(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        self._process.terminate()
        self._process.wait()


class Server:
    """Programs on one side, dom0 on the other."""

    def __init__(self, bus: Bus, start: Callable[[], Call]) -> None:
        self._bus, self._start = bus, start
        self._call: Call | None = None
        self._not_before = 0.0
        self._open: dict[int, list[str]] = {}  # keys of the actions of each notice
        self._last = 0
        self._methods: dict[str, Callable[[Message], tuple[str, tuple[Any, ...]]]] = {
            "Notify": self._notify,
            "CloseNotification": self._close,
            "GetCapabilities": lambda _message: ("as", (["actions", "body"],)),
            "GetServerInformation": lambda _message: ("ssss", ("Insula", "Insula", "1", "1.2")),
        }

    def serve(self, idle: float = _IDLE) -> None:
        """Go on until nothing is shown and nobody asked for a while.

        Raises:
            OSError, ProtocolError: the bus is gone.
        """
        self._bus.call("Hello")
        self._bus.call("RequestName", "su", NAME, _DO_NOT_QUEUE)
        while True:
            watched = [self._bus.socket.fileno()]
            if self._call is not None:
                watched.append(self._call.descriptor)
            ready, _, _ = select.select(watched, [], [], None if self._open else idle)
            if not ready:
                break
            if watched[0] in ready:
                for message in self._bus.read():
                    self._serve(message)
            elif self._call is not None:
                self._hear(self._call)
        if self._call is not None:
            self._call.end()

    def _serve(self, message: Message) -> None:
        if message.kind != Kind.CALL:
            return
        method = self._methods.get(message.member)
        if method is None or message.interface not in ("", NAME):
            self._bus.send(message.refusal(_UNKNOWN_METHOD))
            return
        try:
            signature, body = method(message)
        except (TypeError, ValueError, AttributeError):
            self._bus.send(message.refusal(_INVALID))
            return
        self._bus.send(message.answer(signature, *body))

    def _notify(self, message: Message) -> tuple[str, tuple[Any, ...]]:
        _program, replaced, _icon, summary, body, actions, hints, timeout = message.body
        if message.signature != "susssasa{sv}i":
            raise ValueError("not a notice")
        number = replaced if replaced in self._open else self._next()
        keys, labels = actions[::2], actions[1::2]
        urgency = hints.get("urgency", Variant("y", Urgency.NORMAL)).value
        shown = Show(
            number,
            Urgency(urgency) if urgency in tuple(Urgency) else Urgency.NORMAL,
            max(timeout, -1),
            summary.encode(),
            body.encode(),
            tuple(label.encode() for label in labels),
        )
        self._open[number] = keys
        if (call := self._reached()) is not None:
            call.send(shown.encode())
        else:
            self._gone(number, _UNDEFINED)
        if len(self._open) > _MOST_OPEN:
            self._gone(next(iter(self._open)), _UNDEFINED)
        return "u", (number,)

    def _next(self) -> int:
        self._last = self._last % 0xFFFF_FFFF + 1
        return self._last

    def _close(self, message: Message) -> tuple[str, tuple[Any, ...]]:
        (number,) = message.body
        if number in self._open and self._call is not None:
            self._call.send(Close(number).encode())
        return "", ()

    def _reached(self) -> Call | None:
        """The call to dom0, made anew if need be; None when it only just failed."""
        if self._call is None and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + _PAUSE
            with suppress(OSError):
                self._call = self._start()
        return self._call

    def _hear(self, call: Call) -> None:
        try:
            for said in call.read():
                if isinstance(said, Closed):
                    self._gone(said.number, said.reason)
                elif said.index < len(keys := self._open.get(said.number, [])):
                    self._signal("ActionInvoked", "us", said.number, keys[said.index])
        except (OSError, ProtocolError):
            call.end()
            self._call = None
            for number in tuple(self._open):
                self._gone(number, _UNDEFINED)

    def _gone(self, number: int, reason: int) -> None:
        if self._open.pop(number, None) is not None:
            self._signal("NotificationClosed", "uu", number, reason)

    def _signal(self, member: str, signature: str, *body: Any) -> None:
        self._bus.send(
            Message(
                kind=Kind.SIGNAL, path=PATH, interface=NAME, member=member, signature=signature,
                body=body,
            )
        )  # fmt: skip


def main() -> int:
    """Serve the session whose bus the environment names."""
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or os.environ.get("DBUS_STARTER_ADDRESS")
    try:
        bus = Bus(address or "")
        Server(bus, lambda: Call(call_words(_TARGET, SERVICE))).serve()
    except (OSError, ProtocolError) as error:
        print(f"notifications: {error}", file=sys.stderr)
        return 1
    return 0
