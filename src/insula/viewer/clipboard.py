"""The clipboard's keys, and text between the qube and the person's session (gui.md section 9).

A qube's text is taken only after the copy key, and given to it only after the paste key.
"""

import time
from collections.abc import Callable

from insula.protocol.gui.handshake import MAJOR, MINOR
from insula.protocol.gui.keys import LOOKED_AT, Sequence
from insula.protocol.gui.limits import MAX_CLIPBOARD_OLD
from insula.protocol.gui.messages import ClipboardData, ClipboardRequest, ViewerMessage
from insula.protocol.viewing import COPIED, EMPTY, MALFORMED, MAX_RAW, OVERSIZED, Record
from insula.viewer.config import Config
from insula.viewer.desktop import Desktop
from insula.viewer.restraint import Log
from insula.viewer.session_link import SessionLink

_COPY_TIME = 5.0  # seconds that a qube has to answer the copy key
_PASTE_TIME = 2.0  # seconds that input waits behind the paste key for the text to go first
_FIRST_LONGER = 8  # the first minor version with the longer clipboard


class Clipboard:
    """Of one qube. minor: the version of the protocol that its agent speaks."""

    def __init__(
        self,
        desktop: Desktop,
        config: Config,
        log: Log,
        *,
        link: SessionLink,
        send: Callable[[ViewerMessage], None],
    ) -> None:
        self._desktop = desktop
        self._config = config
        self._link = link
        self._log = log
        self._send = send
        self._keycodes: dict[Sequence, int] | None = None
        self._swallowed: set[int] = set()  # keys that are down, and were pressed for us
        self._asked: tuple[int, float] | None = None  # time of the copy key, end of our patience
        self._pasting: float | None = None  # when input goes on without the text
        self.minor = MINOR

    def keyboard_changed(self) -> None:
        """The keyboard mapping is another."""
        self._keycodes = None

    def takes(self, window: int, keycode: int, state: int, at: int, *, pressed: bool) -> bool:
        """Whether a key is the clipboard's, and not the qube's; at is the X server's time."""
        if not pressed:
            if keycode in self._swallowed:
                self._swallowed.discard(keycode)
                return True
            return False
        for sequence, act in (
            (self._config.copy_key, self._copy),
            (self._config.paste_key, self._paste),
        ):
            if sequence is not None and self._matches(sequence, keycode, state):
                if keycode not in self._swallowed:  # not when it repeats itself
                    self._swallowed.add(keycode)
                    act(window, at)
                return True
        return False

    def _matches(self, sequence: Sequence, keycode: int, state: int) -> bool:
        if state & LOOKED_AT != sequence.modifiers:
            return False
        if self._keycodes is None:
            keys = [key for key in (self._config.copy_key, self._config.paste_key) if key]
            found = self._desktop.keycodes([key.keysym for key in keys])
            self._keycodes = dict(zip(keys, found, strict=True))
        return self._keycodes[sequence] == keycode

    def _copy(self, window: int, at: int) -> None:
        if self._config.rpc_clipboard:
            limit, version = self._sizes()
            key = self._config.paste_key_text
            self._link.say("fetch", time=at, limit=limit, version=version, paste_key=key)
            return
        self._asked = at, time.monotonic() + _COPY_TIME
        self._send(ClipboardRequest(window))

    def _paste(self, window: int, at: int) -> None:
        if self._link.there:
            self._pasting = time.monotonic() + _PASTE_TIME
            limit, version = self._sizes()
            by_call = self._config.rpc_clipboard
            self._link.say(
                "paste", time=at, window=window, limit=limit, version=version, by_call=by_call
            )

    def received(self, message: ClipboardData) -> None:
        """Pass on what the qube answers to the copy key."""
        asked, self._asked = self._asked, None
        if asked is None or time.monotonic() > asked[1]:
            self._log.write("clipboard data that nobody asked for, dropped")
            return
        size = len(message.data)
        if size == 0:
            self._tell(asked[0], EMPTY, 0)
        elif size > self._config.max_clipboard_size:
            self._tell(asked[0], OVERSIZED, size)
        else:
            self._tell(asked[0], COPIED, size, message.data)

    def malformed(self, size: int) -> None:
        """The qube sent more than its version of the protocol has, which ends us."""
        if self._asked is not None:
            self._tell(self._asked[0], MALFORMED, size)

    def _tell(self, at: int, outcome: str, size: int, text: bytes = b"") -> None:
        key = self._config.paste_key_text
        limit, version = self._sizes()
        self._link.say(
            "copied",
            text,
            time=at,
            outcome=outcome,
            size=size,
            limit=limit,
            version=version,
            paste_key=key,
        )

    def _sizes(self) -> tuple[int, int]:
        return self._config.max_clipboard_size, MAJOR << 16 | self.minor

    def answered(self, record: Record) -> None:
        """Pass on the session's answer to the paste key, however late: it has wiped the text."""
        self._pasting = None
        if record.fields.get("op") == "text":
            longest = MAX_RAW if self.minor >= _FIRST_LONGER else MAX_CLIPBOARD_OLD
            self._send(ClipboardData(record.number("window"), record.raw[:longest]))

    @property
    def holds_input_until(self) -> float | None:
        """Until when what the person does waits, so that the text is there before it."""
        if self._pasting is not None and (
            not self._link.there or time.monotonic() >= self._pasting
        ):
            self._pasting = None
        return self._pasting
