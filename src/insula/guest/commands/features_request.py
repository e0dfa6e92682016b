"""qvm-features-request: ask dom0 for features of this qube (in-qube.md section 5)."""

import subprocess
import sys
from collections.abc import Sequence

from insula.guest.commands.calling import call
from insula.guest.commands.qubesdb import Database
from insula.protocol.errors import ProtocolError

_PREFIX = "/features-request/"
_USAGE = "usage: qvm-features-request NAME=VALUE... [--commit]"


def main(words: Sequence[str] | None = None) -> int:
    """Write what is asked for; with --commit have dom0 look at it."""
    given = list(sys.argv[1:] if words is None else words)
    commit = "--commit" in given
    pairs = [word for word in given if word != "--commit"]
    if (not pairs and not commit) or any("=" not in word for word in pairs):
        print(_USAGE, file=sys.stderr)
        return 1
    try:
        database = Database()
        for word in pairs:
            name, _, value = word.partition("=")
            database.write(_PREFIX + name, value.encode())
    except (OSError, ProtocolError) as error:
        print(f"qvm-features-request: {error}", file=sys.stderr)
        return 1
    return call("dom0", "qubes.FeaturesRequest", stdout=subprocess.DEVNULL) if commit else 0
