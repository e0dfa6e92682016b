"""What is measured, and how it is shown beside what was aimed at."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One result. met: None where there is nothing to compare with. seen: raw samples."""

    name: str
    value: str
    target: str
    met: bool | None
    seen: tuple[float, ...] = field(default=())


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def interleaved(times: int, *works: Callable[[], float]) -> tuple[list[float], ...]:
    """Run several measurements in turn, so that a busy moment falls on all of them."""
    samples: tuple[list[float], ...] = tuple([] for _ in works)
    for _ in range(times):
        for work, taken in zip(works, samples, strict=True):
            taken.append(work())
    return samples


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table("figure", "seen", "target", "", title="Figures of this machine, this run")
    for figure in figures:
        verdict = {True: "met", False: "NOT met", None: ""}[figure.met]
        table.add_row(figure.name, figure.value, figure.target, verdict)
    Console(width=150).print(table)
