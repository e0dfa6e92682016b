"""The daemon's log: a fixed message a line, with its fields behind it."""

import logging
import os
import sys
import time
from dataclasses import dataclass

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
MOST_LINES = 500  # about one qube, after a while without any
LINES_A_SECOND = 1.0


@dataclass(slots=True)
class _Account:
    """What may still be said of a qube, when that was reckoned, and how much was not said."""

    lines: float
    reckoned: float
    left_out: int = 0


class Quota(logging.Filter):
    """Leaves out lines about a qube of which there were too many: it may be what causes them.

    The next one says how many. Errors, which are ours, are never left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._accounts: dict[str, _Account] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is kept."""
        fields = vars(record)
        qube = fields.get("qube", fields.get("source"))
        if qube is None or record.levelno >= logging.ERROR:
            return True
        now = time.monotonic()
        account = self._accounts.pop(str(qube), None) or _Account(MOST_LINES, now)
        earned = (now - account.reckoned) * LINES_A_SECOND
        account.lines, account.reckoned = min(MOST_LINES, account.lines + earned), now
        self._accounts[str(qube)] = account  # The last of them, thus.
        self._forget(now)
        if account.lines < 1:
            account.left_out += 1
            return False
        account.lines -= 1
        if account.left_out:
            record.left_out, account.left_out = account.left_out, 0
        return True

    def _forget(self, now: float) -> None:
        """Forget those about whom nothing was said for so long that all may be said again."""
        for qube, account in tuple(self._accounts.items()):
            if (now - account.reckoned) * LINES_A_SECOND < MOST_LINES:
                return
            del self._accounts[qube]


class _Formatter(logging.Formatter):
    """time level logger: message key=value ..."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        fields = {key: value for key, value in vars(record).items() if key not in _USUAL}
        if not fields:
            return text
        # Values may be a qube's text: repr keeps control characters out of terminals.
        shown = " ".join(f"{key}={value!r}" for key, value in fields.items())
        first, newline, rest = text.partition("\n")
        return f"{first} {shown}{newline}{rest}"


def set_up_logs() -> None:
    """Log to standard error; INSULA_LOG names the lowest level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Quota())
    logging.basicConfig(level=os.environ.get("INSULA_LOG", "INFO").upper(), handlers=[handler])
    logging.getLogger("qemu.qmp").setLevel(logging.WARNING)
