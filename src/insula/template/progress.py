"""How far a bootstrap is, from what mmdebstrap and apt print."""

import re
from collections.abc import Callable

Progress = Callable[[str, float | None], None]  # phase, and the part of it done (0 to 1) if known

_COUNT = re.compile(r"\d+ upgraded, (\d+) newly installed")
_STEP = re.compile(r"Get:\d+ |Unpacking |Setting up ")
_STEPS = 3  # of each package
_PHASES = ("base system", "packages")  # mmdebstrap asks apt twice


class BootstrapProgress:
    """Turns lines into calls of a progress function; a phase never goes back."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._counts = 0
        self._total = 0
        self._done = 0

    def hear(self, line: str) -> None:
        """Take the next line."""
        count = _COUNT.match(line)
        if count is not None:
            self._counts += 1
            self._total, self._done = int(count[1]) * _STEPS, 0
        elif self._total and self._done < self._total and _STEP.match(line):
            self._done += 1
            phase = _PHASES[min(self._counts, len(_PHASES)) - 1]
            self._report(phase, self._done / self._total)
