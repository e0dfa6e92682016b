"""The text between qubes: files of the instance, as gui.md section 9.2 has them.

Whoever looks at them takes the lock; the source's file is rewritten with every change.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from insula.protocol.errors import ProtocolError
from insula.protocol.gui.handshake import MAJOR, MINOR
from insula.protocol.viewing import COPIED, EMPTY, MALFORMED, MAX_RAW, OUTCOMES, OVERSIZED, Record

DATA = "qubes-clipboard.bin"
LOCK = "appviewer.lock"
_MODE = 0o660
_HALF = 1 << 31  # of the X server's times, which begin again at 2**32
_FIELDS = (
    "vmname", "xevent_timestamp", "successful", "copy_action", "paste_action",
    "malformed_request", "oversized_request", "cleared", "qrexec_clipboard", "sent_size",
    "buffer_size", "protocol_version_xside", "protocol_version_vmside",
)  # fmt: skip

_OWN = Record({"limit": MAX_RAW, "version": MAJOR << 16 | MINOR})
Allowed = Callable[[str, str], bool]


class Clipboard:
    """Holds one text, for one paste into one qube. Methods wait for the lock and for the policy."""

    def __init__(self, directory: Path, allowed: Allowed) -> None:
        """allowed: whether the policy lets text go from a qube to another."""
        self._directory = directory
        self._allowed = allowed

    def copied(self, qube: str, record: Record) -> str | None:
        """Take what a qube answered to the copy key; what to tell the person of it.

        Raises:
            ProtocolError: the record is not as it should be.
        """
        outcome, at = record.text("outcome"), record.number("time")
        size, limit = record.number("size"), record.number("limit")
        if outcome not in OUTCOMES or (outcome == COPIED and size != len(record.raw)):
            raise ProtocolError(f"{outcome!r} of {len(record.raw)} bytes")
        facts: dict[str, int | str] = {
            "xevent_timestamp": at, "copy_action": 1, "sent_size": size,
            "successful": int(outcome in (COPIED, EMPTY)),
            "malformed_request": int(outcome == MALFORMED),
            "oversized_request": int(outcome == OVERSIZED),
            "cleared": int(outcome in (EMPTY, OVERSIZED)),
        }  # fmt: skip
        with self._locked():
            if outcome == COPIED:
                stored = self._time()
                if stored is not None and _not_older(stored, at):
                    return None
                self._write("", record.raw)
                self._write(".xevent", f"{at}\n".encode())
                self._write(".source", qube.encode("ascii"))
            elif outcome != MALFORMED:
                self._wipe()
            self._describe(qube, record, facts)
        if outcome == COPIED:
            text = f"{amount(size)} copied from {qube}."
            return (
                f"{text} Press {record.text('paste_key')} in another qube's window to pass it on."
            )
        if outcome == EMPTY:
            return f"Nothing copied: the clipboard of {qube} is empty. The global one is, too, now."
        if outcome == OVERSIZED:
            return (
                f"Not copied: the clipboard of {qube} has {amount(size)}, the limit is"
                f" {amount(limit)}. The global one is empty now."
            )
        return f"Not copied: what {qube} sent is no clipboard, and its windows are opened anew."

    def paste(self, qube: str, record: Record) -> tuple[bytes | None, str | None]:
        """The text for a qube whose paste key was pressed, which is the last it is given to.

        None for no text; and what to tell the person.

        Raises:
            ProtocolError: the record is not as it should be.
        """
        at = record.number("time")
        record.number("window")
        with self._locked():
            stored = self._time()
            source = self._read(".source").decode("ascii", "replace")
            if (stored is not None and _not_older(stored, at)) or not source:
                return None, None
            if source == qube or not self._allowed(source, qube):
                return None, f"Not pasted: text of {source} may not go to {qube}."
            text = self._read("")
            self._wipe()
            facts: dict[str, int | str] = {
                "xevent_timestamp": at, "successful": 1, "paste_action": 1, "cleared": 1,
                "sent_size": len(text),
            }  # fmt: skip
            self._describe(qube, record, facts)
        return text, f"{amount(len(text))} of {source} pasted into {qube} and wiped."

    def put(self, source: str, text: bytes) -> None:
        """Have text that no qube's key brought; the next paste gives it away."""
        with self._locked():
            self._write("", text)
            self._write(".xevent", b"")
            self._write(".source", source.encode("ascii"))
            facts: dict[str, int | str] = {
                "copy_action": 1, "successful": 1, "sent_size": len(text),
            }  # fmt: skip
            self._describe(source, _OWN, facts)

    def clear(self) -> None:
        """Forget the text."""
        with self._locked():
            self._wipe()
            self._describe("dom0", _OWN, {"successful": 1, "cleared": 1})

    def _wipe(self) -> None:
        self._write("", b"")
        self._write(".source", b"")

    def _time(self) -> int | None:
        stored = self._read(".xevent").strip()
        return int(stored) % (2 * _HALF) if stored.isdigit() else None

    def _describe(self, qube: str, record: Record, facts: dict[str, int | str]) -> None:
        found: dict[str, int | str] = {
            **dict.fromkeys(_FIELDS, 0),
            "vmname": f'"{qube}"',
            "qrexec_clipboard": int(record.fields.get("by_call") is True),
            "buffer_size": record.number("limit"),
            "protocol_version_xside": MAJOR << 16 | MINOR,
            "protocol_version_vmside": record.number("version"),
            **facts,
        }
        lines = ",\n".join(f'"{name}":{found[name]}' for name in _FIELDS)
        self._write(".metadata", f"{{\n{lines}\n}}\n".encode("ascii"))

    def _read(self, ending: str) -> bytes:
        try:
            return (self._directory / f"{DATA}{ending}").read_bytes()
        except FileNotFoundError:
            return b""

    def _write(self, ending: str, content: bytes) -> None:
        """Rewrite a file in place: others watch it by its inode."""
        path = self._directory / f"{DATA}{ending}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, _MODE), "wb") as file:
            os.fchmod(file.fileno(), _MODE)
            file.write(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(self._directory / LOCK, flags, _MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def amount(size: int) -> str:
    """A size as people read it."""
    if size == 1:
        return "1 byte"
    if size < 1024:
        return f"{size} bytes"
    return f"{size} bytes ({size / 1024:.1f} KiB)"


def _not_older(stored: int, at: int) -> bool:
    return (stored - at) % (2 * _HALF) < _HALF
