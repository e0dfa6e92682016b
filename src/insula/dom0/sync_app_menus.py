"""The service qubes.SyncAppMenus: a qube tells of its applications (gui.md section 12.2)."""

import os
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO

from insula.client.app import App
from insula.menus.keeping import ask_for_pictures, refresh, take
from insula.menus.store import Store
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.menus import LONGEST_LINE

_PAUSE = 1.0  # seconds until the same qube may tell again


def main() -> int:
    """Serve one call."""
    source = os.environ.get("QREXEC_REMOTE_DOMAIN", "")
    try:
        _serve(source, sys.stdin.buffer)
    except (ReportableError, ProtocolError) as error:
        sys.stderr.write(f"qubes.SyncAppMenus: {error}\n")
        return 1
    return 0


def _serve(source: str, untrusted: BinaryIO) -> None:
    qube, store = App().domains[source], Store()
    if qube.klass in ("DispVM", "AdminVM"):
        raise ReportableError(f"{source} has no menu that is kept")
    with store.only_changer(source, wait=False):
        new = take(source, _lines(untrusted), store)
        if ask_for_pictures(qube, store) or new:
            refresh()
        time.sleep(_PAUSE)


def _lines(untrusted: BinaryIO) -> Iterator[bytes]:
    """Lines, those that are too long in pieces that say nothing."""
    while line := untrusted.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = untrusted.readline(LONGEST_LINE + 1)


if __name__ == "__main__":
    sys.exit(main())
