"""qrexec-policy-agent: puts the questions of the policy to the person (qrexec-wire.md 11.6)."""

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QSocketNotifier, Qt, QTimer
from PySide6.QtWidgets import QApplication, QLabel

from insula.client import instance
from insula.prompts import words
from insula.prompts.front import InFront
from insula.prompts.suspicion import SuspicionWindow
from insula.prompts.waiting import Waiting
from insula.prompts.window import QuestionWindow
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.policy_agent import (
    DENY,
    ENDS,
    MAX_REQUEST,
    Ask,
    Notify,
    Suspicious,
    Tell,
    parse_request,
)

SOCKET_NAME = "policy-agent.sock"
TIMEOUT = 300.0  # seconds that a person has for one question
_BACKLOG = 64
_CHUNK = 65_536
_IDLE = 60.0  # seconds
_IDLE_POLL = 5000  # milliseconds
_NOTICE = 6000  # milliseconds
_MOST_NOTICES = 5
_MARGIN = 24  # pixels

log = logging.getLogger("qrexec-policy-agent")


class _Asked:
    """One connection: what came of its request so far, and the question that it is."""

    def __init__(self, connection: socket.socket, on_closed: Callable[[], None]) -> None:
        self.connection = connection
        self._on_closed = on_closed
        self.received = bytearray()
        self.ask: Ask | Suspicious | None = None
        self.window: QuestionWindow | SuspicionWindow | None = None
        self.notifier: QSocketNotifier | None = None

    def close(self, answer: bytes) -> None:
        """Say the answer, which fits into any socket, and end the connection."""
        if self.notifier is not None:
            self.notifier.setEnabled(False)
            self.notifier = None
        try:
            self.connection.send(answer)
        except OSError:
            log.info("an asker is gone")
        self.connection.close()
        self._on_closed()


class Agent:
    """Takes questions on a socket, and shows them one after the other."""

    def __init__(self, listener: socket.socket) -> None:
        self._waiting: Waiting[_Asked] = Waiting()
        self._notices: list[QLabel] = []
        self._in_front = InFront()
        self._open = 0
        self._listener = listener
        self._listener.setblocking(False)
        self._accepting = QSocketNotifier(self._listener.fileno(), QSocketNotifier.Type.Read)
        self._accepting.activated.connect(self._accept)
        self.last_used = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether nothing is asked or shown, and was not for a while."""
        busy = self._open or self._notices
        return not busy and time.monotonic() - self.last_used > _IDLE

    def _closed(self) -> None:
        self._open -= 1
        self.last_used = time.monotonic()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._open += 1
        self.last_used = time.monotonic()
        asked = _Asked(connection, self._closed)
        asked.notifier = QSocketNotifier(connection.fileno(), QSocketNotifier.Type.Read)
        asked.notifier.activated.connect(lambda: self._take(asked))

    def _take(self, asked: _Asked) -> None:
        try:
            data = asked.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        asked.received += data
        if data and len(asked.received) <= MAX_REQUEST:
            return
        if asked.notifier is not None:
            asked.notifier.setEnabled(False)
        try:
            request = parse_request(bytes(asked.received))
        except ProtocolError as error:
            log.warning("not asked: %s", error)
            asked.close(DENY)
            return
        if isinstance(request, Notify):
            self._show_notice(words.notice(request))
            asked.close(b"")
            return
        if isinstance(request, Tell):
            self._show_notice(request.text)
            asked.close(b"")
            return
        asked.ask = request
        source = request.qube if isinstance(request, Suspicious) else request.source
        if self._waiting.add(source, asked):
            self._show_next()
        else:
            log.warning("%s asks too much", source)
            asked.close(DENY)

    def _show_next(self) -> None:
        asked = self._waiting.next()
        if asked is None or asked.ask is None:
            return

        def over(answer: bytes) -> None:
            self._in_front.let_go()
            asked.close(answer)
            self._waiting.over()
            QTimer.singleShot(0, self._show_next)

        def answered(target: str | None) -> None:
            over(DENY if target is None else f"allow:{target}".encode("ascii"))

        window: QuestionWindow | SuspicionWindow
        try:
            if isinstance(asked.ask, Suspicious):
                window = SuspicionWindow(asked.ask.qube, lambda ends: over(ENDS if ends else DENY))
            else:
                window = QuestionWindow(asked.ask, answered)
        except Exception:
            log.exception("a question cannot be shown")
            answered(None)
            return
        asked.window = window
        QTimer.singleShot(int(TIMEOUT * 1000), window, window.refuse)
        window.show()
        window.raise_()
        self._in_front.keep(window)

    def _show_notice(self, text: str) -> None:
        """A line in a corner, for a while; it takes no focus and no clicks."""
        while len(self._notices) >= _MOST_NOTICES:
            self._notices.pop(0).deleteLater()
        flags = (
            Qt.WindowType.ToolTip
            | Qt.WindowType.WindowStaysOnTopHint
            | Qt.WindowType.WindowDoesNotAcceptFocus
        )
        label = QLabel(text)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWindowFlags(flags)
        label.setAttribute(Qt.WidgetAttribute.WA_ShowWithoutActivating)
        label.setStyleSheet("background: #303030; color: white; padding: 10px;")
        label.adjustSize()
        self._notices.append(label)
        screen = QApplication.primaryScreen().availableGeometry()
        below = screen.bottom() - _MARGIN
        for one in reversed(self._notices):
            below -= one.height() + 4
            one.move(screen.right() - one.width() - _MARGIN, below)
        label.show()
        QTimer.singleShot(_NOTICE, label, lambda: self._end_notice(label))

    def _end_notice(self, label: QLabel) -> None:
        if label in self._notices:
            self._notices.remove(label)
        label.deleteLater()


def listening(path: Path) -> socket.socket:
    """A listening socket for its owner alone.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(_BACKLOG)
    return listener


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the session ends."""
    parser = argparse.ArgumentParser(
        prog="qrexec-policy-agent", description="Ask the person about calls between qubes."
    )
    parser.add_argument("-s", "--socket-path", metavar="PATH", type=Path, help="where to listen")
    parser.add_argument(
        "--listener", metavar="NUMBER", type=int,
        help="a listening socket that is there already; end when nothing is asked for a while",
    )  # fmt: skip
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.pop("QT_IM_MODULE", None)  # No input method's program is to see what is typed.
    application = QApplication(["insula"])
    application.setQuitOnLastWindowClosed(False)
    try:
        if given.listener is not None:
            listener = socket.socket(fileno=given.listener)
        else:
            listener = listening(given.socket_path or instance.run() / SOCKET_NAME)
    except (OSError, ReportableError) as error:
        print(f"qrexec-policy-agent: {error}", file=sys.stderr)
        return 1
    agent = Agent(listener)
    timer = QTimer(application, interval=_IDLE_POLL)
    if given.listener is not None:
        timer.timeout.connect(lambda: application.quit() if agent.idle else None)
        timer.start()
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())
