"""Telling how far a build is: a bar on a terminal, a line for each phase elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from insula.template.progress import Progress


@contextmanager
def told() -> Iterator[Progress]:
    """A progress function for the block; it writes to standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console  # noqa: PLC0415 - a fifth of a second
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description:24}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("template", total=None)

        def show(phase: str, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            bar.update(task, description=phase, completed=fraction or 0.0, total=total)

        yield show


class _Lines:
    """Says each phase once."""

    def __init__(self) -> None:
        self._phase = ""

    def __call__(self, phase: str, _fraction: float | None) -> None:
        if phase != self._phase:
            self._phase = phase
            print(phase, file=sys.stderr, flush=True)
