"""The service qubes.ShowInTerminal: a terminal window joined to the call (in-qube.md section 4).

The terminal runs this module again, which finds the call's streams among its descriptors.
"""

import os
import select
import sys
import tty
from pathlib import Path

_TERMINAL = "xterm"
_TITLE = "Terminal of another qube"
_ROOT = Path(__file__).resolve().parents[3]
_AGAIN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from insula.guest.services.terminal import join; join(*map(int, sys.argv[1:]))"
)
_CHUNK = 4096


def main() -> int:
    """Become a terminal that shows standard input, and sends what is typed to standard output."""
    streams = [os.dup(number) for number in (0, 1)]
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # The terminal itself would hold the call open.
        os.dup2(nothing, number)
    for stream in streams:
        os.set_inheritable(stream, True)
    python = [sys.executable, "-SPBE", "-c", _AGAIN, str(_ROOT), *map(str, streams)]
    try:
        os.execvp(_TERMINAL, [_TERMINAL, "-T", _TITLE, "-e", *python])
    except OSError as error:
        print(f"{_TERMINAL}: {error.strerror}", file=sys.stderr)
    return 127


def join(source: int, sink: int) -> None:
    """Pass every key of this terminal to sink, and show what comes from source, until one ends."""
    tty.setraw(0)
    ways = {0: sink, source: 1}
    poll = select.poll()
    for end in ways:
        poll.register(end, select.POLLIN)
    try:
        while True:
            for ready, _ in poll.poll():
                if not _pass_on(ready, ways[ready]):
                    return
    except OSError:
        return  # One of them is gone.


def _pass_on(source: int, sink: int) -> bool:
    data = memoryview(os.read(source, _CHUNK))
    if not data:
        return False
    while data:
        data = data[os.write(sink, data) :]
    return True


if __name__ == "__main__":
    sys.exit(main())
