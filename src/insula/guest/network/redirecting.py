"""Keeping the redirection of questions for names as it should be, and doing nothing if it is."""

import subprocess
from contextlib import suppress

from insula.guest.network import programs, redirection
from insula.guest.network.addresses import Provider
from insula.guest.network.places import Places

_RELOAD = ("/bin/systemctl", "--no-block", "reload", "qubes-firewall.service")
_TIMEOUT = 20.0  # seconds


def pending(own: Provider, places: Places) -> str:
    """Rules that are not in force yet; empty if they are."""
    servers = redirection.real_servers(places.resolv_conf, places.resolved)
    rules = redirection.rules(own.virtual_dns, servers)
    with suppress(OSError):
        if places.redirection.read_text() == rules:
            return ""
    return rules


def put_in_force(rules: str, places: Places, others: str = "") -> None:
    """Have these rules be in force, and others with them.

    Raises:
        OSError, ProgramError: they are not, or would be taken for rules that are not.
    """
    programs.nft(others + rules)
    places.redirection.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    places.redirection.write_text(rules)


def tell_firewall(places: Places) -> None:
    """Let it know the name servers that clients ask now."""
    if places.service("qubes-firewall"):
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                _RELOAD,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT,
                check=False,
            )
