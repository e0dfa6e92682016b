"""What viewers tell the session (protocol/viewing.py): the clipboard, suspicions, notices."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from insula.desktop.clipboard import Clipboard
from insula.protocol.errors import ProtocolError
from insula.protocol.viewing import (
    COPIED,
    COVER,
    EMPTY,
    MAX_RAW,
    NOTICES,
    OLD_AGENT,
    OLD_DOM0,
    OVERSIZED,
    PROTOCOL,
    Record,
    encode,
    take,
)

_CHUNK = 65_536
_COPY, _PASTE = "qubes.ClipboardCopy", "qubes.ClipboardPaste"
_MOST_SAID = 4_096  # bytes that a service says which is to say nothing
_MOST_LINES = 8  # that wait to be shown
_BETWEEN_NOTICES = 10.0  # seconds, of one kind and one qube
_WORDS = {
    COVER: "A window of {} that wanted to cover the screen without a frame was given one.",
    OLD_AGENT: (
        "The windows of {0} cannot be shown: its window agent is too old and must be updated. The"
        " qube starts without windows by qvm-start --no-guid, and qvm-console-dispvm {0} opens its"
        " console."
    ),
    OLD_DOM0: "The windows of {} cannot be shown: dom0 is too old and must be updated.",
    PROTOCOL: "The windows of {} were closed: it broke the rules of the window protocol.",
}

log = logging.getLogger("insula.session")


class Hearing:
    """Of all viewers."""

    def __init__(
        self,
        clipboard: Clipboard,
        *,
        tell: Callable[[str], Awaitable[None]],
        ends: Callable[[str], Awaitable[bool]],
        kill: Callable[[str], Awaitable[None]],
        call: Callable[[str, str, bytes, int], Awaitable[bytes | None]],
    ) -> None:
        """tell: show the person a line. ends: ask whether a suspicious qube is to end.

        call: give bytes to a qube's service, and take at most so many.
        """
        self._clipboard = clipboard
        self._turn = asyncio.Lock()  # one after the other, in the order in which they came
        self._tell = tell
        self._ends = ends
        self._kill = kill
        self._call = call
        self._telling: set[asyncio.Future[None]] = set()
        self._told: dict[tuple[str, str], float] = {}

    async def hear(self, qube: str, connection: socket.socket) -> None:
        """Serve a qube's viewer until it is gone, or breaks the rules; closes the connection."""
        connection.setblocking(False)
        received = bytearray()
        asking: asyncio.Task[None] | None = None
        try:
            while chunk := await asyncio.get_running_loop().sock_recv(connection, _CHUNK):
                received += chunk
                while (record := take(received)) is not None:
                    if record.fields.get("op") == "suspicious":
                        if asking is None or asking.done():
                            asking = asyncio.create_task(self._ask(qube, connection, record))
                    else:
                        await self._take(qube, connection, record)
        except OSError:
            pass
        except ProtocolError as error:
            log.warning("%s: its viewer is not heard any more: %s", qube, error)
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            connection.close()

    async def close(self) -> None:
        """Show nothing more."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _take(self, qube: str, connection: socket.socket, record: Record) -> None:
        match record.fields.get("op"):
            case "copied":
                async with self._turn:
                    words = await asyncio.to_thread(self._clipboard.copied, qube, record)
                self._say(words)
            case "paste":
                async with self._turn:
                    text, words = await asyncio.to_thread(self._clipboard.paste, qube, record)
                answer = Record({"op": "nothing"})
                if text is not None and record.fields.get("by_call") is True:
                    if await self._call(qube, _PASTE, text, _MOST_SAID) is None:
                        words = f"Not pasted: {qube} did not take the text, which is wiped."
                elif text is not None:
                    answer = Record({"op": "text", "window": record.number("window")}, text)
                await _send(connection, answer)
                self._say(words)
            case "fetch":
                await self._fetch(qube, record)
            case "notice":
                self._notice(qube, record.text("kind"))
            case op:
                raise ProtocolError(f"no such operation: {op!r}")

    async def _fetch(self, qube: str, record: Record) -> None:
        """Get a qube's text by a call."""
        limit = min(record.number("limit"), MAX_RAW)
        text = await self._call(qube, _COPY, b"", limit + 1)
        if text is None:
            self._say(f"Not copied: {qube} did not give its clipboard.")
            return
        outcome = EMPTY if not text else OVERSIZED if len(text) > limit else COPIED
        fields = {**record.fields, "outcome": outcome, "size": len(text), "by_call": True}
        made = Record(fields, text if outcome == COPIED else b"")
        async with self._turn:
            words = await asyncio.to_thread(self._clipboard.copied, qube, made)
        self._say(words)

    def _notice(self, qube: str, kind: str) -> None:
        if kind not in NOTICES:
            raise ProtocolError(f"a notice of {kind!r}")
        now = asyncio.get_running_loop().time()
        if now - self._told.get((qube, kind), -_BETWEEN_NOTICES) >= _BETWEEN_NOTICES:
            self._told[qube, kind] = now
            self._say(_WORDS[kind].format(qube))

    def _say(self, words: str | None) -> None:
        """Tell the person, without waiting until it is shown."""
        if words is None:
            return
        log.info("%s", words)
        if len(self._telling) < _MOST_LINES:
            task = asyncio.ensure_future(self._tell(words))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _ask(self, qube: str, connection: socket.socket, record: Record) -> None:
        log.warning("%s sent something suspicious: %s", qube, record.text("what"))
        if await self._ends(qube):
            await self._kill(qube)
        else:
            with suppress(OSError):
                await _send(connection, Record({"op": "go_on"}))


async def _send(connection: socket.socket, record: Record) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, encode(record))
