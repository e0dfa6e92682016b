"""Keeping the redirection of questions for names as it should be, and doing nothing if it is."""

from contextlib import suppress

from insula.guest.network import redirection
from insula.guest.network.addresses import Provider
from insula.guest.network.places import Places


def pending(own: Provider, places: Places) -> str:
    """Rules for nft to put in force, and then to be told of to done(); empty if they are."""
    servers = redirection.real_servers(places.resolv_conf, places.resolved)
    rules = redirection.rules(own.virtual_dns, servers)
    with suppress(OSError):
        if places.redirection.read_text() == rules:
            return ""
    return rules


def done(rules: str, places: Places) -> None:
    """Remember that these are in force.

    Raises:
        OSError: it cannot be remembered.
    """
    places.redirection.write_text(rules)
