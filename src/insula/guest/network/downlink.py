"""A client's card in its provider, for `ip` and `nft` (network-firewall.md section 4)."""

from collections.abc import Iterable

from insula.guest.network.addresses import Address, Downlink

_METRICS = 32_752  # less the client's number: of links that overlap the newest counts


def commands(card: Downlink) -> list[str]:
    """Configure the card, which is down or has been configured by the same commands before."""
    name = card.name
    own = [
        f"addr replace {gateway}/{gateway.max_prefixlen} dev {name}"
        + (" nodad" if gateway.version == 6 else "")
        for gateway in card.gateways
    ]
    neighbours = [
        f"neigh replace {address} dev {name} lladdr {card.client_mac} nud permanent"
        for address in card.addresses
    ]
    routes = [
        f"route replace {address} dev {name} metric {_METRICS - card.domain}"
        for address in card.addresses
    ]
    return [*neighbours, f"link set dev {name} group 2 up", *routes, *own]


def allow(card: Downlink) -> str:
    """For nft: let packets of these addresses come from this card, and from no other."""
    return "".join(
        f'add element {_family(address)} qubes allowed {{ "{card.name}" . {address} }}\n'
        f"add element {_family(address)} qubes downstream {{ {address} }}\n"
        for address in card.addresses
    )


def forbid(name: str, addresses: Iterable[Address], still_used: Iterable[Address]) -> str:
    """For nft: undo it. still_used: addresses that another card has, too.

    Each element is added first, as to delete one that is not there is an error.
    """
    kept = set(still_used)
    lines: list[str] = []
    for address in addresses:
        family = _family(address)
        elements = [f'{family} qubes allowed {{ "{name}" . {address} }}']
        if address not in kept:
            elements.append(f"{family} qubes downstream {{ {address} }}")
        lines += [
            f"{verb} element {element}\n" for element in elements for verb in ("add", "delete")
        ]
    return "".join(lines)


def _family(address: Address) -> str:
    return "ip6" if address.version == 6 else "ip"
