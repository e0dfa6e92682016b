"""qubes-gui: the window agent without a machine, over the socket vchan (gui.md sections 1 and 8).

Environment beside that of the socket vchan: INSULA_PIXELS, a file in place of the pixel region,
without which nobody sees what is drawn; INSULA_GUI_RUN and INSULA_SERVICES as for a machine's
agent.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from insula.guest.gui.__main__ import serve
from insula.guest.gui.channel import Listener
from insula.guest.gui.region import Region
from insula.qrexec import vchan

_PORT = 6000
_UNSEEN = 64 * 1024 * 1024  # bytes of pixels


def main(words: Sequence[str] | None = None) -> int:
    """Serve a GUI domain's daemons, one after the other."""
    parser = argparse.ArgumentParser(
        prog="qubes-gui", description="Have windows of this display shown in another domain."
    )
    parser.add_argument("-d", "--domid", metavar="DOMID", type=int, required=True)
    parser.add_argument("-v", "--verbose", action="count", help="accepted")
    parser.add_argument("-q", "--quiet", action="count", help="accepted")
    parser.add_argument("-c", "--composite-redirect-automatic", action="store_true",
                        help="accepted")  # fmt: skip
    parser.add_argument("-M", "--no-kbd-match-modifiers", action="store_true", help="accepted")
    options = parser.parse_args(words)
    path = vchan.path_of(vchan.own_domain(), options.domid, _PORT)
    return serve(lambda poller: Listener(poller, str(path), plain=True), _region)


def _region() -> Region:
    pixels = os.environ.get("INSULA_PIXELS")
    if pixels is not None:
        return Region.open(pixels)
    unseen = os.memfd_create("pixels", os.MFD_CLOEXEC)
    os.ftruncate(unseen, _UNSEEN)
    return Region.open(str(Path("/proc/self/fd", str(unseen))))


if __name__ == "__main__":
    sys.exit(main())
