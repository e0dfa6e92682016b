"""Settings of the kernel for a card and for a provider, below /proc/sys."""

from contextlib import suppress
from pathlib import Path

Settings = dict[str, str]

_HARDENED4 = {
    "accept_redirects": "0",
    "accept_source_route": "0",
    "bootp_relay": "0",
    "drop_gratuitous_arp": "1",
    "drop_unicast_in_l2_multicast": "1",
    "secure_redirects": "0",
    "send_redirects": "0",
    "shared_media": "0",
}
_HARDENED6 = {
    "accept_dad": "0",
    "accept_ra": "0",
    "accept_redirects": "0",
    "accept_source_route": "-1",
    "autoconf": "0",
    "dad_transmits": "0",
    "drop_unicast_in_l2_multicast": "1",
    "drop_unsolicited_na": "1",
    "router_solicitations": "0",
}


def of_card(name: str, *, silent: bool, hardened: bool) -> Settings:
    """What every card has: no address but those that it is given.

    silent: it says nothing by itself, as nobody on the other end has to find it.
    """
    settings = {f"net/ipv6/conf/{name}/accept_ra": "0"}
    if silent:
        settings[f"net/ipv6/conf/{name}/addr_gen_mode"] = "1"  # no link-local address
    if hardened:
        settings |= {f"net/ipv4/conf/{name}/{key}": value for key, value in _HARDENED4.items()}
        settings |= {f"net/ipv6/conf/{name}/{key}": value for key, value in _HARDENED6.items()}
    return settings


def of_downlink(name: str, *, ipv6: bool) -> Settings:
    """What a client's card has besides."""
    settings = {f"net/ipv4/conf/{name}/proxy_arp": "1"}
    if ipv6:
        settings[f"net/ipv6/conf/{name}/proxy_ndp"] = "1"
    return settings


def of_provider(*, ipv6: bool) -> Settings:
    """What a qube has that passes packets on."""
    settings = {"net/ipv4/ip_forward": "1"}
    if ipv6:
        settings["net/ipv6/conf/all/forwarding"] = "1"
    return settings


def write(settings: Settings, place: Path = Path("/proc/sys")) -> None:
    """Put settings in force, those first that are not yet; a kernel without IPv6 has none of it."""
    for key, value in settings.items():
        path = place / key
        with suppress(FileNotFoundError):
            if path.read_text().strip() != value:
                path.write_text(value)
