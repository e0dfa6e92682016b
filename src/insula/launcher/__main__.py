"""insula menu: a window to start applications of any qube from."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from insula.client.app import App
from insula.client.errors import QubesException
from insula.launcher.finding import Entry
from insula.launcher.window import MenuWindow
from insula.menus.host import command
from insula.menus.store import Store
from insula.menus.system import menu_qubes
from insula.protocol.errors import ReportableError

_POLL = 1000  # milliseconds


class Launcher:
    """Keeps a window true, and starts what is chosen. stay: go on after something was started."""

    def __init__(self, *, stay: bool) -> None:
        self._stay = stay
        self._store = Store()
        self.window = MenuWindow(self._store, self._start)
        self._listed: list[tuple[str, str]] = []
        self._started: list[subprocess.Popen[bytes]] = []
        self._timer = QTimer(self.window, interval=_POLL)
        self._timer.timeout.connect(self._look)

    def show(self) -> None:
        """Show the window.

        Raises:
            ReportableError: the daemon does not answer.
        """
        self._load()
        self.window.show()
        self.window.activateWindow()
        self._timer.start()

    def _load(self) -> None:
        app = App(cache=True)
        qubes = menu_qubes(app, self._store)
        self._listed = [(one.name, one.uuid) for one in app.domains.listing()]
        self.window.show_qubes(qubes, app.labels.names())

    def _look(self) -> None:
        """Show how qubes are now; all is read anew where there are others."""
        self._started = [one for one in self._started if one.poll() is None]
        try:
            listed = App().domains.listing()
            if [(one.name, one.uuid) for one in listed] != self._listed:
                self._load()
            else:
                self.window.show_states({one.name: one.state for one in listed})
        except QubesException as error:
            self.window.complain(str(error))

    def _start(self, entry: Entry, disposable: bool) -> None:
        target = None if disposable else entry.qube.name
        words = command(target, entry.application.id, template=entry.disposables)
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            self.window.complain(f"{words[0]}: {error.strerror}")
            return
        self._started.append(process)
        if not self._stay:
            self.window.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Show the window until it is closed."""
    parser = argparse.ArgumentParser(
        prog="insula menu", description="Start applications of any qube."
    )
    parser.add_argument(
        "--stay", action="store_true", help="leave the window open after something was started"
    )
    given = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.pop("QT_IM_MODULE", None)  # As in windows that ask: no other program sees keys.
    application = QApplication(["insula"])
    launcher = Launcher(stay=given.stay)
    try:
        launcher.show()
    except ReportableError as error:
        print(f"insula menu: error: {error}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())
