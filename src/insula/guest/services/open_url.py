"""The service qubes.OpenURL: opens an address that another qube sends (in-qube.md section 4)."""

import re
import subprocess
import sys

from insula.guest.handlers import find_command

_ADDRESS = re.compile(rb"(https?|ftp)://[!-~]+", re.ASCII)
_LONGEST = 65_536  # bytes


def main() -> int:
    """Serve one call on standard input; returns its exit code."""
    untrusted = sys.stdin.buffer.readline(_LONGEST + 1).rstrip(b"\n")
    if len(untrusted) > _LONGEST or _ADDRESS.fullmatch(untrusted) is None:
        print("not an address that is opened here", file=sys.stderr)
        return 1
    address = untrusted.decode("ascii")
    scheme = address.partition(":")[0]
    command = find_command(f"x-scheme-handler/{scheme}", address)
    if command is None:
        print(f"nothing here opens {scheme} addresses", file=sys.stderr)
        return 1
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
