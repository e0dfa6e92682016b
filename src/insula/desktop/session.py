"""Show the windows of an instance's qubes on the person's display: `insula session`.

Runs in the person's session on DISPLAY. It follows the daemon's events and has a viewer opened for
each running qube; it never speaks with a qube. Viewers go on while the daemon is restarted, and
end with the session.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

from insula.client import instance, local_socket
from insula.client.admin import call
from insula.client.errors import QubesDaemonCommunicationError, QubesException
from insula.client.events import events
from insula.desktop import bus, service_calls
from insula.desktop.asking import put_questions
from insula.desktop.clipboard import Clipboard
from insula.desktop.hearing import Hearing
from insula.desktop.lock import AlreadyShownError, release, take
from insula.desktop.menus import Menus
from insula.desktop.shown import Asking, keep_shown
from insula.desktop.telling import ends, tell
from insula.desktop.xdisplay import Display, DisplayError, Greeted, parse
from insula.protocol.admin import ADMIN_QUBE, Event, parse_listed_qubes
from insula.protocol.errors import ProtocolError, ReportableError

_RECONNECT = 0.25  # seconds between two tries to reach a daemon that is gone
_DOWN_AFTER = 20  # such tries without a keeper: the instance is down
_UP = frozenset({"Running", "Transient", "Paused", "Suspended"})
_STARTS = frozenset({"domain-spawn", "domain-start"})
_ENDS = frozenset({"domain-stopped", "domain-shutdown", "domain-start-failed"})
_DRAIN = 65_536
_CALL_TIMEOUT = 20.0
_PASTE = "qubes.ClipboardPaste"

log = logging.getLogger("insula.session")


class Session:
    """Viewers of an instance on a display."""

    def __init__(self, display: Display, greeted: Greeted, run: Path, *, ends_with: bool) -> None:
        """ends_with: end when the instance is put down, rather than wait for it."""
        self._display = display
        self._greeted = greeted
        self._run = run
        self._ends_with = ends_with
        self._asking = Asking(display)
        self._hearing = Hearing(
            Clipboard(run, _paste_allowed),
            tell=partial(tell, run),
            ends=partial(ends, run),
            kill=_kill,
            call=service_calls.call,
        )
        self._shown: dict[str, asyncio.Task[None]] = {}
        self._menus = Menus(_ask)
        self._back = asyncio.Event()
        self._questions: asyncio.Task[None] | None = None
        self._layout = greeted.keyboard_layout()

    async def serve(self) -> None:
        """Go on until the display is gone, or the instance if we are to end with it."""
        watching = asyncio.create_task(self._until_display_ends())
        following = asyncio.create_task(self._follow())
        menus = asyncio.create_task(self._menus.serve())
        try:
            await asyncio.wait((watching, following), return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, following):
                if task.done():
                    task.result()
        finally:
            tasks = (watching, following, menus, *self._shown.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._asking.settle()
            await self._hearing.close()

    async def _until_display_ends(self) -> None:
        """Wait for the end of our connection; what comes on it tells of new keyboard mappings."""
        loop = asyncio.get_running_loop()
        connection = self._greeted.connection
        connection.setblocking(False)
        with connection:
            while await _received(loop, connection):
                await self._mapping_changed()
        log.info("the display is gone")

    async def _follow(self) -> None:
        """Follow one daemon after another."""
        without = 0
        while not (self._ends_with and without >= _DOWN_AFTER):
            try:
                async with aclosing(events()) as happening:
                    async for event in happening:
                        without = 0
                        await self._take(event)
            except (QubesException, ProtocolError) as error:
                if self._back.is_set():
                    log.info("the daemon is gone: %s", error)
            finally:
                await self._put_no_questions()
            self._back.clear()
            alive = instance.answers(self._run / "keeper.sock", socket.SOCK_SEQPACKET)
            without = 0 if alive else without + 1
            await asyncio.sleep(_RECONNECT)
        log.info("the instance is down")

    def _put_questions(self) -> None:
        """Have the person asked for a daemon; one that is gone asks nothing any more."""
        if self._questions is None:
            self._questions = asyncio.create_task(put_questions(self._run, self._display.text))

    async def _put_no_questions(self) -> None:
        questions, self._questions = self._questions, None
        if questions is not None:
            questions.cancel()
            await asyncio.gather(questions, return_exceptions=True)

    async def _take(self, event: Event) -> None:
        self._menus.take(event)
        if not event.subject:
            if event.name == "connection-established":
                self._put_questions()
                await self._catch_up()
            return
        if event.name in _STARTS:
            await self._show(event.subject)
        elif event.name in _ENDS:
            self._hide(event.subject)

    async def _catch_up(self) -> None:
        """Learn what runs, from a daemon that is new to us."""
        listed = parse_listed_qubes(await _ask(ADMIN_QUBE, "admin.vm.List"))
        running = [one.name for one in listed if one.klass != "AdminVM" and one.state in _UP]
        log.info("%d qubes run", len(running))
        self._back.set()
        for name in set(self._shown) - set(running):
            self._hide(name)
        for name in running:
            await self._show(name)
        await self._report_layout()

    async def _show(self, qube: str) -> None:
        known = self._shown.get(qube)
        if (known is not None and not known.done()) or not await self._has_windows(qube):
            return
        task = asyncio.create_task(
            keep_shown(qube, self._asking, self._hearing.hear, lambda: self._back)
        )
        self._shown[qube] = task
        task.add_done_callback(lambda done: self._over(qube, done))

    def _hide(self, qube: str) -> None:
        task = self._shown.pop(qube, None)
        if task is not None:
            task.cancel()

    def _over(self, qube: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: not shown any more", qube, exc_info=error)

    async def _has_windows(self, qube: str) -> bool:
        """Feature gui: only one that is set and empty says that there are none."""
        try:
            value = await _ask(qube, "admin.vm.feature.CheckWithTemplate", "gui")
        except QubesDaemonCommunicationError:
            raise
        except QubesException:
            return True
        return bool(value)

    async def _mapping_changed(self) -> None:
        """Read the layout again, on a connection that no event can disturb."""
        try:
            greeted = await asyncio.to_thread(Greeted, self._display)
        except DisplayError:
            return  # the display's end shows on the connection that we keep
        with greeted.connection:
            layout = await asyncio.to_thread(greeted.keyboard_layout)
        if layout != self._layout:
            self._layout = layout
            await self._report_layout()

    async def _report_layout(self) -> None:
        """Tell the daemon of the display's keyboard layout, for qubes to have the same."""
        if self._layout is None:
            return
        try:
            await _ask(ADMIN_QUBE, "admin.vm.property.Set", "keyboard_layout", self._layout)
        except QubesDaemonCommunicationError:
            return  # the next daemon is told anyway
        except QubesException as error:
            log.warning("keyboard layout %s not set: %s", self._layout, error)


def _paste_allowed(source: str, target: str) -> bool:
    try:
        answer = local_socket.request(
            "evaluate", timeout=_CALL_TIMEOUT, service=_PASTE, source=source, target=target
        )
    except (QubesException, ProtocolError) as error:
        log.warning("nobody says whether text may go from %s to %s: %s", source, target, error)
        return False
    return answer.get("allowed") is True


async def _kill(qube: str) -> None:
    try:
        await _ask(qube, "admin.vm.Kill")
    except QubesException as error:
        log.warning("%s: not ended: %s", qube, error)


async def _ask(destination: str, method: str, argument: str = "", payload: str = "") -> str:
    answer = await asyncio.to_thread(
        call, destination, method, argument, payload.encode(), timeout=_CALL_TIMEOUT
    )
    return answer.decode("utf-8", "replace")


async def _received(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bool:
    """Whether anything came, rather than the end."""
    try:
        return bool(await loop.sock_recv(connection, _DRAIN))
    except OSError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """Run a session; prints errors with their way out. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="insula session", description="Show the windows of all qubes on this display."
    )
    parser.add_argument("--display", default=os.environ.get("DISPLAY", ""), help="not $DISPLAY")
    parser.add_argument(
        "--background",
        type=Path,
        metavar="LOG",
        help="go on in the background, log there, and end when the instance is put down",
    )
    options = parser.parse_args(arguments)
    try:
        return _run(options.display, options.background)
    except AlreadyShownError as error:
        if options.background is not None and error.display == options.display:
            return 0
        return _told(error)
    except ReportableError as error:
        return _told(error)


def _told(error: ReportableError) -> int:
    print(f"insula session: error: {error}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)
    return error.exit_code


def _run(text: str, background: Path | None) -> int:
    display = parse(text)
    run = instance.run()
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = take(run, text)
    greeted = Greeted(display)
    if background is not None:
        _go_to_background(background)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    session = Session(display, greeted, run, ends_with=background is not None)
    try:
        with bus.told(run):
            asyncio.run(_until_signal(session))
    finally:
        release(lock)
    return 0


async def _until_signal(session: Session) -> None:
    serving = asyncio.create_task(session.serve())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving


def _go_to_background(log_path: Path) -> None:
    """Become nobody's child, with a session, streams and a directory of its own."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    output = os.open(log_path, flags, 0o600)
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    for source, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, number)
    os.close(nothing)
    os.close(output)
    os.chdir("/")


if __name__ == "__main__":
    sys.exit(main())
