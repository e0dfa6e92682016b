"""Telling whoever sits before the screen that rules of a client cannot be enforced."""

import os
import subprocess
import threading
from contextlib import suppress

_SHOWN = 8  # seconds
_USER = "user"
_DISPLAY = ":0"
_SCRIPT = 'printf "%s\\n" "$0"; exec sleep "$1"'


def complain(text: str) -> None:
    """Say it in the journal, and for a while in a window of this qube's."""
    print(text, flush=True)
    argv = ["/sbin/runuser", "--user", _USER, "--", "/usr/bin/timeout", str(_SHOWN + 10)]
    argv += ["/usr/bin/xterm", "-title", "Firewall", "-geometry", "80x8", "-e"]
    argv += ["/bin/sh", "-c", _SCRIPT, text, str(_SHOWN)]
    threading.Thread(target=_run, args=(argv,), daemon=True).start()


def _run(argv: list[str]) -> None:
    with suppress(OSError):
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "DISPLAY": _DISPLAY},
            check=False,
        )
