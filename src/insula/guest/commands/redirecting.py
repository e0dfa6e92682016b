"""qubes-setup-dnat-to-ns: have questions for names go to whom this qube asks now.

For programs that change that, as those of tunnels do (network-firewall.md section 5).
"""

import sys
from contextlib import closing

from insula.guest.commands.qubesdb import Database
from insula.guest.network import addresses, programs, redirecting
from insula.guest.network.places import Places
from insula.protocol.errors import ProtocolError
from insula.protocol.qubesdb import MessageType

_KEYS = "/qubes-netvm-"
_FAILED, _UNCHANGED = 1, 100


def main(places: Places | None = None) -> int:
    """Returns 100 when nothing had to be done."""
    places = places or Places()
    try:
        with closing(Database()) as database:
            found = database.below(_KEYS, MessageType.MULTIREAD)
            keys = {path.decode(): value.decode() for path, value in found}
        own = addresses.provider(keys.get)
        rules = redirecting.pending(own, places) if own is not None else ""
        if not rules:
            return _UNCHANGED
        redirecting.put_in_force(rules, places)
    except (OSError, ValueError, ProtocolError, programs.ProgramError) as error:
        print(f"qubes-setup-dnat-to-ns: {error}", file=sys.stderr)
        return _FAILED
    redirecting.tell_firewall(places)
    return 0
