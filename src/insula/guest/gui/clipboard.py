"""The qube's end of the clipboard: its text to the viewer, and the viewer's to its programs."""

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from insula.guest.gui.display import Display
from insula.guest.gui.xlib import xcffib
from insula.protocol.gui.limits import MAX_CLIPBOARD, MAX_CLIPBOARD_OLD
from insula.protocol.gui.messages import AgentMessage, ClipboardData
from insula.protocol.gui.text import clean_text

_X = xcffib.xproto
_PROPERTY = "QUBES_SELECTION"
_SELECTIONS = ("PRIMARY", "CLIPBOARD")
_TARGETS = ("STRING", "TARGETS", "UTF8_STRING", "COMPOUND_TEXT")
_TOO_LONG = b"The text was not copied: it is longer than this qube's clipboard can pass on."
_WIPE = "gui-agent-clipboard-wipe"
_KEPT = 60.0  # seconds without use, where it is to be wiped
_FIRST_LONGER = 8  # the first minor version with the longer clipboard
_NOTIFY = 31  # event number of SelectionNotify
_UTF8_IN_COMPOUND, _END_OF_UTF8 = b"\x1b%G", b"\x1b%@"


class Clipboard:
    """Asks whoever owns the selection, and owns it after a paste. minor: the viewer's version."""

    def __init__(
        self, display: Display, services: Path, send: Callable[[AgentMessage], None]
    ) -> None:
        """services: where the qube's services are, each a file."""
        self._display = display
        self._services = services
        self._send = send
        self._asked_for: int | None = None  # the window that was named when the text was asked for
        self._text = b""
        self._used = 0.0
        self.minor = _FIRST_LONGER

    def asked(self, window: int) -> None:
        """The person copies: ask the owner of the selection which forms it has."""
        clipboard = self._display.atom("CLIPBOARD")
        owner = self._display.core.GetSelectionOwner(clipboard).reply().owner
        self._asked_for = window
        if owner:
            self._convert("TARGETS")
        else:
            self._answer(b"")

    def notified(self, event: Any) -> None:
        """The owner has converted the selection, or refuses to."""
        atom = self._display.atom
        if self._asked_for is None or event.requestor != self._display.stub:
            return
        if event.target == atom("TARGETS"):
            offered = self._display.words(self._display.stub, _PROPERTY) if event.property else ()
            self._convert("UTF8_STRING" if atom("UTF8_STRING") in offered else "STRING")
            return
        if not event.property:
            self._answer(b"")
            return
        found = self._display.long_property(self._display.stub, _PROPERTY, self._longest)
        if found is None:
            self._answer(b"")
        else:
            kind, text = found
            self._answer(_TOO_LONG if kind == atom("INCR") else text)

    @property
    def _longest(self) -> int:
        return MAX_CLIPBOARD if self.minor >= _FIRST_LONGER else MAX_CLIPBOARD_OLD

    def _convert(self, target: str) -> None:
        atom, core, stub = self._display.atom, self._display.core, self._display.stub
        core.DeleteProperty(stub, atom(_PROPERTY))
        core.ConvertSelection(stub, atom("CLIPBOARD"), atom(target), atom(_PROPERTY), 0)

    def _answer(self, text: bytes) -> None:
        window, self._asked_for = self._asked_for, None
        self._display.core.DeleteProperty(self._display.stub, self._display.atom(_PROPERTY))
        if window is not None:
            self._send(ClipboardData(window, text[: self._longest]))

    def received(self, text: bytes) -> None:
        """The person pastes: be the owner of both selections."""
        self._text = text.split(b"\0", 1)[0]
        self._used = time.monotonic()
        for name in _SELECTIONS:
            selection = self._display.atom(name)
            self._display.core.SetSelectionOwner(self._display.stub, selection, 0)

    def requested(self, event: Any) -> None:
        """A program asks for what was pasted."""
        now = time.monotonic()
        if now - self._used > _KEPT and (self._services / _WIPE).exists():
            self._text = b""
        self._used = now
        atom = self._display.atom
        place = event.property or event.target
        if event.target == atom("TARGETS"):
            raw = struct.pack(f"={len(_TARGETS)}I", *(atom(name) for name in _TARGETS))
            self._write(event.requestor, place, atom("ATOM"), raw, size=32)
        elif event.target == atom("UTF8_STRING"):
            text = self._text if clean_text(self._text) else b""
            self._write(event.requestor, place, event.target, text)
        elif event.target == atom("STRING"):
            text = self._text.decode("utf-8", "replace").encode("latin-1", "replace")
            self._write(event.requestor, place, event.target, text)
        elif event.target == atom("COMPOUND_TEXT"):
            self._write(event.requestor, place, event.target, _compound(self._text))
        else:
            place = 0
        fields = (event.time, event.requestor, event.selection, event.target, place)
        notice = struct.pack("=BxH5I8x", _NOTIFY, 0, *fields)
        self._display.core.SendEvent(False, event.requestor, 0, notice)

    def _write(self, window: int, place: int, kind: int, raw: bytes, *, size: int = 8) -> None:
        count = len(raw) * 8 // size
        self._display.core.ChangeProperty(
            _X.PropMode.Replace, window, place, kind, size, count, raw
        )


def _compound(text: bytes) -> bytes:
    """Text in the encoding of X's COMPOUND_TEXT: Latin-1, or else marked as UTF-8."""
    decoded = text.decode("utf-8", "replace")
    try:
        return decoded.encode("latin-1")
    except UnicodeEncodeError:
        return _UTF8_IN_COMPOUND + decoded.encode() + _END_OF_UTF8
