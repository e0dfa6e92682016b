"""The daemon's log: a fixed message a line, with its fields behind it."""

import logging
import os
import sys

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
    logging.basicConfig(level=os.environ.get("INSULA_LOG", "INFO").upper(), handlers=[handler])
    logging.getLogger("qemu.qmp").setLevel(logging.WARNING)
