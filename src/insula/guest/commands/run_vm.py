"""qvm-run-vm: run a command in another qube (in-qube.md section 5)."""

import os
import subprocess
import sys
from collections.abc import Sequence

from insula.guest.commands.calling import call_words

_USAGE = "usage: qvm-run-vm [-t|--no-gui] [-d|--dispvm] QUBE COMMAND [ARGUMENT]..."
_EXIT_USAGE = 2
_CHUNK = 65_536


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; whether it could be called is the exit code, not what it ended with."""
    rest = list(sys.argv[1:] if words is None else words)
    gui, target = True, None
    while rest and rest[0].startswith("-"):
        match rest.pop(0):
            case "-t" | "--no-gui":
                gui = False
            case "-d" | "--dispvm":
                target = "@dispvm"
            case "-h" | "--help":
                print(_USAGE)
                return 0
            case "--":
                break
            case word:
                print(f"qvm-run-vm: unknown option {word}\n{_USAGE}", file=sys.stderr)
                return _EXIT_USAGE
    if target is None and rest:
        target = rest.pop(0)
    if target is None or not rest:
        print(_USAGE, file=sys.stderr)
        return _EXIT_USAGE
    service = "qubes.VMShell" + ("+WaitForSession" if target == "@dispvm" and gui else "")
    process = subprocess.Popen(call_words(target, service), stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        process.stdin.write(first_line(rest))
        process.stdin.flush()
        while data := os.read(0, _CHUNK):
            process.stdin.write(data)
            process.stdin.flush()
        process.stdin.close()
    except BrokenPipeError:
        pass  # The command reads no more.
    return process.wait()


def first_line(command: Sequence[str]) -> bytes:
    """What makes the shell over there become the command."""
    quoted = " ".join(command).replace("'", "'\\''")
    return os.fsencode(f"exec bash -c '{quoted}' || exit 127\n")
