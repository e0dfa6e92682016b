"""Telling how far the updates of several qubes are: bars on a terminal, lines elsewhere."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from insula.tools.command import say
from insula.tools.updating.one import Outcome

Tell = Callable[[str, str, int | None], object]  # qube, phase, percentage


@contextmanager
def told(names: list[str], *, bars: bool) -> Iterator[Tell]:
    """A function for the block that tells of one qube's progress; it may be called by threads."""
    if not bars or not sys.stderr.isatty():
        yield _Phases().tell
        return
    from rich.console import Console  # noqa: PLC0415 - a fifth of a second
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        TextColumn("{task.fields[phase]:20}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {name: progress.add_task(name, total=100, phase="waiting") for name in names}

        def tell(name: str, phase: str, percent: int | None) -> None:
            progress.update(tasks[name], phase=phase, completed=percent)

        yield tell


class _Phases:
    """Says each phase of each qube once."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()

    def tell(self, name: str, phase: str, _percent: int | None) -> None:
        with self._lock:
            if self._said.get(name) != phase:
                self._said[name] = phase
                say(name, phase)


def summary(outcome: Outcome) -> str:
    """What became of a qube, for people."""
    count = len(outcome.packages)
    if outcome.error is not None:
        return f"{outcome.qube}: failed: {outcome.error}"
    if not count:
        return f"{outcome.qube}: no updates"
    text = f"{outcome.qube}: {count} package{'s' * (count > 1)} updated"
    if outcome.still_runs:
        text += "; qubes made of it get them once it has been shut down"
    return text
