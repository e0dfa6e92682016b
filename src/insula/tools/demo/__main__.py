"""Show qubes of several colours on one desktop: `python -m insula.tools.demo`."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from insula.client.local_socket import request
from insula.protocol.admin import ListedQube
from insula.protocol.errors import ReportableError
from insula.tools.demo import document, qubes
from insula.tools.demo.display import Place, somewhere
from insula.tools.demo.qubes import Left
from insula.tools.demo.screen import Screen, Shown

_WINDOW_TIMEOUT = 60.0  # seconds
_DRAWN_TIMEOUT = 30.0
_GONE_TIMEOUT = 30.0
_REPLAY = 2.0  # seconds that windows of a qube which ran already get to come back
_POLL = 0.05
_MIB = 1024 * 1024
_TERMINALS = ("work", "personal")
# Detached from the call, so that the command ends and the terminal stays.
_TERMINAL = "xterm </dev/null >/dev/null 2>&1 & true"
_MARKS = {"blue": "blue", "yellow": "yellow", "black": "bright_black", "red": "red"}
_NEXT = """Type next:
  source .venv/bin/activate
  qvm-ls                              # what there is
  qvm-run work xterm                  # one more terminal in work
  qvm-run -p --dispvm -- echo hello   # a command in a disposable, then gone
  qvm-open-in-dvm FILE                # a risky document, likewise
  insula status                       # engine, warnings, memory
  insula down                         # end all of it"""


class Demonstration:
    """What was done and seen; times are seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._starts: dict[str, float | None] = {}
        self._windows: dict[str, float | None] = {}
        self._labels = {qube.name: qube.label for qube in qubes.QUBES}

    def run(self, picture: Path) -> None:
        """All of it.

        Raises:
            ReportableError: some step failed.
        """
        with tempfile.TemporaryDirectory(prefix="insula-demo-") as name:
            scratch = Path(name)
            self._make()
            with somewhere(scratch) as place:
                self._console.print(f"Display: {place.display}{' (virtual)' * place.ours}")
                self._show(place, document.find(scratch), picture)
                self._console.print(_NEXT, highlight=False)
                if place.ours:
                    self._console.print(
                        "The qubes go on running, the virtual display does not. To see them, set"
                        " DISPLAY and type:\n  insula session"
                    )

    def _make(self) -> None:
        """Have the usual qubes, those that are shown in any case."""
        words = ["insula", "init"]
        with self._doing(" ".join(words)):
            said = qubes.command(*words)
        self._console.print(said, highlight=False, markup=False, end="")
        there = {one.name for one in qubes.listed()}
        if removed := [one.name for one in qubes.QUBES if one.name not in there]:
            words += removed
            with self._doing(" ".join(words)):
                qubes.command(*words)

    def _show(self, place: Place, shown: document.Document, picture: Path) -> None:
        screen = Screen(place.display)
        for qube in qubes.QUBES:
            with self._doing(f"qvm-start {qube.name}"):
                self._starts[qube.name] = qubes.timed_start(qube.name)
        terminals = [self._terminal(screen, name) for name in _TERMINALS]
        self._console.print(f"Document: {shown.origin}", highlight=False)
        opening = subprocess.Popen(
            qubes.program("qvm-open-in-dvm", "--view-only", str(shown.path)),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            disposable, window = self._disposable(screen, opening, shown)
            screen.arrange([terminals, [window]])
            for one in (*terminals, window):
                with self._doing(f"contents of {one.title}"):
                    screen.drawn(one, _DRAWN_TIMEOUT)
            picture.parent.mkdir(parents=True, exist_ok=True)
            screen.save(picture)
            self._console.print(f"Picture: {picture.resolve()}", highlight=False)
            self._console.print(self._table())
            status = request("status")
            self._console.print(f"Engine: {status['engine']}", highlight=False)
            if status.get("warning"):
                self._console.print(f"Warning: {status['warning']}", highlight=False)
            self._close(screen, disposable, window)
            opening.wait(_GONE_TIMEOUT)
        finally:
            opening.terminate()
            opening.wait()

    def _terminal(self, screen: Screen, name: str) -> Shown:
        """The first window of a qube, opened unless it has one."""
        if self._starts[name] is None:
            with self._doing(f"window of {name} from before"):
                try:
                    found = screen.first_of(name, _REPLAY)
                except ReportableError:
                    pass
                else:
                    self._windows[name] = None
                    return found
        began = time.monotonic()
        with self._doing(f"qvm-run {name} xterm"):
            qubes.command("qvm-run", "--quiet", name, _TERMINAL)
            found = screen.first_of(name, _WINDOW_TIMEOUT)
        self._windows[name] = time.monotonic() - began
        return found

    def _disposable(
        self, screen: Screen, opening: "subprocess.Popen[str]", shown: document.Document
    ) -> tuple[ListedQube, Shown]:
        """Wait for the disposable's start, and for its window."""
        before = {one.uuid for one in qubes.listed()}
        began = time.monotonic()
        with self._doing(f"qvm-open-in-dvm {shown.path.name}"):
            made: ListedQube | None = None
            while made is None or made.name not in self._starts:
                fresh = [one for one in qubes.listed() if one.uuid not in before]
                if fresh:
                    made = fresh[0]
                    if made.state == "Running":
                        self._starts[made.name] = time.monotonic() - began
                if opening.poll() is not None or time.monotonic() - began > _WINDOW_TIMEOUT:
                    opening.terminate()
                    raise ReportableError(
                        f"the document was not opened: {opening.communicate()[1]}"
                    )
                time.sleep(_POLL)
            window = screen.first_of(made.name, _WINDOW_TIMEOUT)
        self._labels[made.name] = "red"
        self._windows[made.name] = time.monotonic() - began
        return made, window

    def _close(self, screen: Screen, disposable: ListedQube, window: Shown) -> None:
        """Close the disposable's window, and show that nothing of it is left."""
        began = time.monotonic()
        with self._doing(f"closing {window.title}"):
            screen.close(window)
            while any(left := qubes.left_of(disposable)):
                if time.monotonic() - began > _GONE_TIMEOUT:
                    raise ReportableError(f"of {disposable.name} there is still: {_words(left)}")
                time.sleep(_POLL)
        self._console.print(
            f"{disposable.name} is gone after {time.monotonic() - began:.1f} s: not in qvm-ls, no"
            f" process names it, no volume, no socket (looked for {disposable.uuid})",
            highlight=False,
        )
        self._console.print(qubes.command("qvm-ls"), highlight=False, end="")

    def _table(self) -> Table:
        table = Table()
        table.add_column("qube")
        table.add_column("label")
        for title in ("start", "first window", "memory: own", "shared"):
            table.add_column(title, justify="right")
        memory = qubes.memory()
        for name, label in self._labels.items():
            own, shared = memory.get(name, (0, 0))
            table.add_row(
                name,
                f"[{_MARKS[label]}]■[/] {label}",
                _seconds(self._starts.get(name), "it ran"),
                _seconds(self._windows.get(name), "it was open" if name in self._windows else "-"),
                f"{own // _MIB} MiB",
                f"{shared // _MIB} MiB",
            )
        return table

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Say what is being done, and afterwards how long it took when that was noticeable."""
        began = time.monotonic()
        what = escape(what)  # titles are a qube's, and brackets would be markup
        with self._console.status(what):
            yield
        self._console.print(f"{what}  [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)


def _seconds(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.1f} s"


def _words(left: Left) -> str:
    return ", ".join(name for name, there in left._asdict().items() if there)


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m insula.tools.demo", description=__doc__)
    parser.add_argument(
        "--picture", type=Path, default=Path("out/demo.png"), help="where to save the screen as PNG"
    )
    options = parser.parse_args(arguments)
    try:
        Demonstration(Console()).run(options.picture)
    except ReportableError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
