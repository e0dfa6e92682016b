"""Lines that a command tells a person on stderr (qvm-tools.md section 1.2).

`logging` would cost a command more than most of them take; these are its lines.
"""

import os
import sys
import time

_QUIET, _NORMAL, _DEBUG = 0, 1, 2
_level = _NORMAL


def set_level(level: int) -> None:
    """How much is said: 0 warnings alone, 1 what is usual, from 2 on all, with its origin."""
    global _level  # noqa: PLW0603 - a process is one command
    _level = level


def say(logger: str, text: str) -> None:
    """A line of normal importance."""
    if _level >= _NORMAL:
        _print(logger, text)


def warn(logger: str, text: str) -> None:
    """A line that is shown in any case."""
    if _level <= _QUIET:
        print(text, file=sys.stderr)
    else:
        _print(logger, text)


def debug(logger: str, text: str) -> None:
    """A line for whoever looks for a fault."""
    if _level >= _DEBUG:
        _print(logger, text)


def traceback() -> None:
    """Show where the error being handled comes from, where that was asked for."""
    if _level >= _DEBUG:
        import traceback  # noqa: PLC0415 - rarely wanted

        traceback.print_exc()


def _print(logger: str, text: str) -> None:
    line = f"{logger}: {text}"
    if _level >= _DEBUG:
        code = sys._getframe(2).f_code
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        at = f"{os.path.basename(code.co_filename).removesuffix('.py')}.{code.co_name}"  # noqa: PTH119
        line = f"{now} [{os.getpid()} {at}:{sys._getframe(2).f_lineno}] {line}"
    print(line, file=sys.stderr)
